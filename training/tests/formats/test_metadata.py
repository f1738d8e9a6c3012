"""What stands in the header of an exported adapter, and what must not."""

import base64
import io
import json
import os

import pytest
import torch
from PIL import Image

from training.datasets.manifest import Entry, manifest
from training.pipelines.references import ModelKind, ModelReference
from training.tests.formats.runs import ALPHA, RANK, checkpoints_of, make_run
from training.trainer.assignment import Assignment
from training.trainer.checkpoints import Checkpoints, Origin
from training.trainer.export import export_checkpoint
from training.trainer.metadata import base_name, file_stem
from training.weights import read_header

REQUIRED = {
    # what sd-scripts keeps even where its metadata are switched off
    "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args",
    # identity, base, recipe and data
    "ss_output_name", "ss_training_started_at", "ss_training_finished_at", "ss_steps", "ss_epoch", "sshs_model_hash",
    "sshs_legacy_hash", "ss_sd_model_name", "ss_learning_rate", "ss_unet_lr", "ss_text_encoder_lr", "ss_optimizer",
    "ss_lr_scheduler", "ss_lr_warmup_steps", "ss_max_train_steps", "ss_batch_size_per_device", "ss_total_batch_size",
    "ss_gradient_accumulation_steps", "ss_mixed_precision", "ss_seed", "ss_min_snr_gamma", "ss_noise_offset",
    "ss_loss_type", "ss_caption_dropout_rate", "ss_resolution", "ss_num_train_images", "ss_num_reg_images",
    "ss_num_validation_images", "ss_dataset_dirs", "ss_bucket_info", "ss_tag_frequency",
    # ModelSpec 1.0.1
    "modelspec.sai_model_spec", "modelspec.architecture", "modelspec.implementation", "modelspec.title",
    "modelspec.resolution", "modelspec.date", "modelspec.description", "modelspec.hash_sha256",
    "modelspec.trigger_phrase",
    # ours
    "imagehub.run_id", "imagehub.step", "imagehub.config_sha256", "imagehub.dataset_sha256", "imagehub.trigger_word",
}  # fmt: skip


def add_checkpoint(run, step=100, **progress):
    weights = {
        f"unet.mid.attn2.to_k.lora_{factor}.weight": torch.ones(shape)
        for factor, shape in (("A", (RANK, 768)), ("B", (16, RANK)))
    }
    checkpoints_of(run).save(
        step,
        weights=weights,
        state={},
        progress={"epoch": 7, "started_at": 1_700_000_000.5} | progress,
    )


def header_of(run, step=100):
    return read_header(export_checkpoint(run, step).file).metadata


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path / "run", architecture="sd1")
    add_checkpoint(run)
    return run


def test_all_that_other_programs_look_for_is_there_as_text(run):
    said = header_of(run)

    assert said.keys() >= REQUIRED
    assert all(isinstance(value, str) for value in said.values())


def test_it_says_how_it_was_trained(run):
    said = header_of(run)

    assignment = Assignment.read(run)
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == (str(RANK), str(ALPHA))
    assert (said["ss_base_model_version"], said["ss_v2"]) == ("sd_v1", "False")
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (said["ss_steps"], said["ss_epoch"], said["ss_max_train_steps"]) == ("100", "7", "100")
    assert said["ss_text_encoder_lr"] == said["ss_unet_lr"] == "0.0001"
    assert (said["ss_num_train_images"], said["ss_sd_model_name"]) == ("6", "tiny")
    assert said["imagehub.run_id"] == assignment.run_id
    assert said["imagehub.config_sha256"] == assignment.recipe.digest()
    buckets = json.loads(said["ss_bucket_info"])["buckets"]
    assert buckets == {"0": {"resolution": [64, 64], "count": 3}}


@pytest.mark.parametrize(
    ("architecture", "version", "spelling"),
    [
        ("sd2", "sd_v2", "stable-diffusion-v2-512/lora"),
        ("sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
        ("other", "other", "other/lora"),
    ],
)
def test_each_family_has_its_name(tmp_path, architecture, version, spelling):
    run = make_run(tmp_path, architecture=architecture)
    add_checkpoint(run)

    said = header_of(run)

    assert (said["ss_base_model_version"], said["modelspec.architecture"]) == (version, spelling)
    assert said["ss_v2"] == str(architecture == "sd2")


def test_what_the_base_predicts_is_read_from_its_folder(tmp_path):
    model = tmp_path / "model"
    (model / "scheduler").mkdir(parents=True)
    (model / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    run = make_run(tmp_path / "run", model=model, architecture="sd1")
    add_checkpoint(run)

    said = header_of(run)

    assert (said["modelspec.prediction_type"], said["ss_base_model_version"]) == ("v", "sd_v1_v")


@pytest.mark.parametrize(
    ("architecture", "prediction", "spelling", "version"),
    [
        ("sd2", "v_prediction", "stable-diffusion-v2-768-v/lora", "sd_v2_v"),
        ("sd2", "epsilon", "stable-diffusion-v2-512/lora", "sd_v2"),
        ("sdxl", "v_prediction", "stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
    ],
)
def test_what_a_single_file_predicts_is_told_by_its_trainer(
    tmp_path, architecture, prediction, spelling, version
):
    file = ModelReference("/models/one.safetensors", ModelKind.FILE)
    run = make_run(tmp_path / "run", model=file, architecture=architecture)
    add_checkpoint(run, prediction_type=prediction)

    said = header_of(run)

    assert (said["modelspec.architecture"], said["ss_base_model_version"]) == (spelling, version)
    assert said["modelspec.prediction_type"] == {"v_prediction": "v"}.get(prediction, prediction)


def test_the_trigger_word_is_counted_where_it_is_a_word(run):
    captions = ("ZORP, on grass", "zorps", "a zorp-like thing", "a dog")
    pictures = manifest(
        Entry(f"{number:064x}", caption, "train", 1, (64, 64), (64, 64))
        for number, caption in enumerate(captions)
    )
    run.manifest.write_text(pictures.to_json())

    assert json.loads(header_of(run)["ss_tag_frequency"]) == {"Zorps-of-Ümläut": {"zorp": 2}}


def test_the_trigger_word_is_told_in_all_three_vocabularies(run):
    said = header_of(run)

    assert said["imagehub.trigger_word"] == said["modelspec.trigger_phrase"] == "zorp"
    assert json.loads(said["ss_tag_frequency"]) == {"Zorps-of-Ümläut": {"zorp": 3}}


def test_without_a_trigger_word_none_is_told(tmp_path):
    run = make_run(tmp_path, trigger_word="")
    add_checkpoint(run)

    said = header_of(run)

    assert not {"modelspec.trigger_phrase", "imagehub.trigger_word"} & said.keys()
    assert said["ss_tag_frequency"] == "{}"


def test_no_path_and_no_caption_leaves(tmp_path):
    secret = tmp_path / "home" / "alice" / "models" / "tiny"
    run = make_run(
        tmp_path / "run",
        model_name=str(secret),
        model=ModelReference(str(secret), ModelKind.FOLDER),
        cache=tmp_path / "cache",
        name="../../etc/Zorps",
    )
    add_checkpoint(run)

    file = export_checkpoint(run, 100).file
    said = read_header(file).metadata

    for secret_text in (str(tmp_path), "alice", "grass"):
        assert secret_text.encode() not in file.read_bytes()
    could_be_paths = {name: value for name, value in said.items() if name.startswith("ss_")}
    assert not [name for name, value in could_be_paths.items() if "/" in value or "\\" in value]
    assert file == run.export / "etc-Zorps.safetensors"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Zorps", "Zorps"),
        ("a/b\\c", "a-b-c"),
        ("../..", "adapter"),
        ("...", "adapter"),
        ("日本 語", "日本-語"),
        ("x" * 300, "x" * 80),
        ("漢" * 80, "漢" * 26),
        ("\0\n", "adapter"),
    ],
)
def test_files_have_harmless_names(name, stem):
    assert file_stem(name) == stem


@pytest.mark.parametrize("name", ["tiny", "acme/tiny", "/home/alice/tiny/", r"C:\models\tiny"])
def test_models_are_told_without_their_folders(name):
    assert base_name(name) == "tiny"


class TestThumbnail:
    def sample(self, run, step, color, size=(512, 768), index=0):
        run.samples.mkdir(exist_ok=True)
        Image.new("RGB", size, color).save(run.samples / f"step-{step:06d}-{index}.png")

    def picture(self, said):
        kind, _, encoded = said["modelspec.thumbnail"].partition(",")
        assert kind == "data:image/jpeg;base64"
        return Image.open(io.BytesIO(base64.b64decode(encoded)))

    def test_without_a_sample_there_is_none(self, run):
        assert "modelspec.thumbnail" not in header_of(run)

    def test_it_is_the_latest_sample_up_to_the_step_and_small(self, run):
        add_checkpoint(run, 60)
        for step, color in ((20, "red"), (60, "lime"), (100, "blue")):
            self.sample(run, step, color)
        self.sample(run, 60, "white", index=1)

        picture = self.picture(header_of(run, 60))

        assert picture.size == (171, 256)
        red, green, blue = picture.getpixel((80, 80))
        assert green > 200 > 50 > red + blue

    def test_noise_is_small_too(self, run):
        (run.samples).mkdir()
        Image.frombytes("RGB", (1024, 1024), os.urandom(3 * 1024 * 1024)).save(
            run.samples / "step-000100-0.png"
        )

        assert len(header_of(run)["modelspec.thumbnail"]) < 64 * 1024

    def test_a_broken_sample_costs_nothing(self, run):
        run.samples.mkdir()
        (run.samples / "step-000100-0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")

        assert "modelspec.thumbnail" not in header_of(run)


def test_pictures_kept_apart_are_counted_apart(tmp_path):
    run = make_run(tmp_path)
    sizes = ((64, 64), (96, 64))
    pictures = manifest(
        Entry(f"{number:064x}", "zorp", role, 3, (64, 64), sizes[number % 2])
        for number, role in enumerate(["train", "train", "train", "validation"])
    )
    run.manifest.write_text(pictures.to_json())
    store = Checkpoints(run, Origin(Assignment.read(run).recipe, pictures.digest()))
    store.save(100, weights={}, state={})

    said = header_of(run)

    assert (said["ss_num_train_images"], said["ss_num_validation_images"]) == ("9", "1")
    assert said["imagehub.dataset_sha256"] == pictures.digest()
    assert [bucket["count"] for bucket in json.loads(said["ss_bucket_info"])["buckets"].values()] == [2, 1]
