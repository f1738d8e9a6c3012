"""An exported file makes a stranger's diffusers draw what the trainer saw, and tells our own reader what it is."""

import hashlib
import json
import os

import pytest
import torch
from diffusers import AutoPipelineForText2Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from training.pipelines.adapters import load_adapter
from training.pipelines.failures import FailureCode, RequestFailed
from training.services import import_adapter
from training.tests.formats.adapted import draw, give_adapter
from training.tests.formats.runs import ALPHA, RANK, checkpoints_of, make_run
from training.trainer import writing
from training.trainer.export import export_checkpoint
from training.weights import Layout, read_header, recognise_adapter
from training.weights.adapters import SCALARS

pytestmark = pytest.mark.usefixtures("one_thread")

LOOSE = {Layout.KOHYA: 1e-3, Layout.DIFFUSERS: 0.0}
"""How far pictures may lie apart: half precision costs something, single precision nothing."""

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def load(folder):
    return AutoPipelineForText2Image.from_pretrained(folder, safety_checker=None)


@pytest.fixture(scope="module")
def trained(tiny_folders, tmp_path_factory):
    """For each shape of models: the folder of a run, what the trainer saw, and what the base draws."""
    runs = {}
    for shape, model in tiny_folders.items():
        pipeline = load(model)
        before = draw(pipeline)
        weights = give_adapter(pipeline)
        run = make_run(tmp_path_factory.mktemp("run"), model=model)
        checkpoints_of(run).save(100, weights=weights, state={})
        runs[shape] = run, draw(pipeline), before
    return runs


def small_run(tmp_path, *, layer=LAYER, value=1.0, **changes):
    run = make_run(tmp_path / "run", **changes)
    weights = {
        f"{layer}.lora_A.weight": torch.full((RANK, 768), value),
        f"{layer}.lora_B.weight": torch.full((16, RANK), value),
    }
    checkpoints_of(run).save(100, weights=weights, state={})
    return run


@pytest.mark.parametrize("layout", [Layout.KOHYA, Layout.DIFFUSERS])
@pytest.mark.parametrize("shape", ["sd15", "sdxl"])
def test_diffusers_draws_what_the_trainer_saw(tiny_folders, trained, shape, layout):
    run, wanted, before = trained[shape]
    exported = export_checkpoint(run, 100, layout=layout)
    pipeline = load(tiny_folders[shape])

    pipeline.load_lora_weights(str(exported.file.parent), weight_name=exported.file.name)

    assert (wanted - before).abs().max() > 0.05  # or there would be nothing to see
    assert (draw(pipeline) - wanted).abs().max() <= LOOSE[layout]


@pytest.mark.parametrize("layout", [Layout.KOHYA, Layout.DIFFUSERS])
@pytest.mark.parametrize("shape", ["sd15", "sdxl"])
def test_the_engine_draws_what_the_trainer_saw(tiny_folders, trained, shape, layout):
    run, wanted, _ = trained[shape]
    exported = export_checkpoint(run, 100, layout=layout)
    pipeline = load(tiny_folders[shape])

    load_adapter(pipeline, exported.file, name="a", label="zorps")

    assert (draw(pipeline) - wanted).abs().max() <= 1e-3


@pytest.mark.parametrize("shape", ["sd15", "sdxl"])
def test_the_text_encoder_is_as_strong_as_it_was_trained(tiny_folders, trained, shape):
    """Some converters lose its scale, which pictures of a tiny model hardly show."""
    run, _, _ = trained[shape]
    exported = export_checkpoint(run, 100)
    pipeline = load(tiny_folders[shape])
    pipeline.load_lora_weights(str(exported.file.parent), weight_name=exported.file.name)

    scales = {
        scale
        for module in pipeline.text_encoder.modules()
        for scale in getattr(module, "scaling", {}).values()
    }

    assert scales == {ALPHA / RANK}


def test_alpha_is_said_in_one_way_only(trained):
    run, _, _ = trained["sd15"]
    kohya = export_checkpoint(run, 100)
    diffusers = export_checkpoint(run, 100, layout=Layout.DIFFUSERS)

    tensors = load_file(kohya.file)
    alphas = {name: float(tensor) for name, tensor in tensors.items() if name.endswith(".alpha")}
    assert len(alphas) == len(tensors) / 3
    assert set(alphas.values()) == {ALPHA}
    assert "lora_adapter_metadata" not in read_header(kohya.file).metadata
    assert not any(name.endswith(".alpha") for name in load_file(diffusers.file))
    said = json.loads(read_header(diffusers.file).metadata["lora_adapter_metadata"])
    assert (said["unet.r"], said["unet.lora_alpha"], said["text_encoder.lora_alpha"]) == (RANK, ALPHA, ALPHA)


def test_kohya_is_half_and_diffusers_single_precision(trained):
    run, _, _ = trained["sd15"]

    kohya = export_checkpoint(run, 100)
    diffusers = export_checkpoint(run, 100, layout=Layout.DIFFUSERS)

    assert {tensor.dtype for tensor in load_file(kohya.file).values()} == {torch.float16}
    assert {tensor.dtype for tensor in load_file(diffusers.file).values()} == {torch.float32}


@pytest.mark.parametrize("layout", [Layout.KOHYA, Layout.DIFFUSERS])
@pytest.mark.parametrize("shape", ["sd15", "sdxl"])
def test_our_reader_recognises_it(trained, shape, layout):
    run, _, _ = trained[shape]

    facts = recognise_adapter(
        read_header(export_checkpoint(run, 100, layout=layout).file, scalars_ending=SCALARS)
    )

    assert (facts.layout, facts.rank, facts.alpha, facts.family) == (layout, RANK, ALPHA, "other")
    assert (facts.trigger_words, facts.base_model_name) == (("zorp",), "tiny")
    assert (facts.title, facts.description) == ("Zorps / of Ümläut", "What zorps look like.")
    parts = {"unet", "text_encoder"} | ({"text_encoder_2"} if shape == "sdxl" else set())
    assert facts.targets.keys() == parts


@pytest.mark.django_db
def test_it_becomes_an_adapter_that_generation_finds(tmp_path):
    run = small_run(tmp_path, architecture="sd1")

    adapter, is_new = import_adapter(export_checkpoint(run, 100).file)

    assert is_new
    assert (adapter.name, adapter.architecture, adapter.rank, adapter.alpha) == (
        "Zorps / of Ümläut",
        "sd1",
        RANK,
        ALPHA,
    )
    assert (adapter.trigger_words, adapter.base_model_name) == (["zorp"], "tiny")


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path):
    run = small_run(tmp_path)

    first = export_checkpoint(run, 100, output=tmp_path / "a.safetensors")
    again = export_checkpoint(run, 100, output=tmp_path / "b.safetensors")

    assert (
        first.sha256 == again.sha256 == hashlib.sha256((tmp_path / "b.safetensors").read_bytes()).hexdigest()
    )
    assert first.size_bytes == (tmp_path / "a.safetensors").stat().st_size


def test_the_file_is_called_as_the_run_and_the_step_if_it_is_not_the_last(tmp_path):
    run = small_run(tmp_path)
    checkpoints_of(run).save(40, weights={}, state={})

    assert export_checkpoint(run, 100).file == run.export / "Zorps-of-Ümläut.safetensors"
    assert export_checkpoint(run, 40).file == run.export / "Zorps-of-Ümläut-step00000040.safetensors"
    assert (
        export_checkpoint(run, 100, layout=Layout.DIFFUSERS).file
        == run.export / "Zorps-of-Ümläut" / "pytorch_lora_weights.safetensors"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_numbers_that_are_none_never_leave(tmp_path, value):
    run = small_run(tmp_path, value=value)

    with pytest.raises(RequestFailed) as refusal:
        export_checkpoint(run, 100)

    assert refusal.value.code == FailureCode.NOT_A_NUMBER
    assert not run.export.exists()


def test_a_damaged_checkpoint_is_refused(tmp_path):
    run = small_run(tmp_path)
    os.truncate(run.checkpoints / "step-000100" / "adapter.safetensors", 100)

    with pytest.raises(RequestFailed, match="step 100 cannot be used") as refusal:
        export_checkpoint(run, 100)

    assert refusal.value.code == FailureCode.BAD_REQUEST


def test_a_step_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(RequestFailed, match="step 90 cannot be used"):
        export_checkpoint(small_run(tmp_path), 90)


def test_a_tensor_that_is_none_of_an_adapter_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    checkpoints_of(run).save(100, weights={"unet.mid.magnitude": torch.ones(1)}, state={})

    with pytest.raises(RequestFailed, match="no adapter has"):
        export_checkpoint(run, 100)


def test_a_full_disk_leaves_no_half_file_and_the_one_before(tmp_path, monkeypatch):
    run = small_run(tmp_path)
    before = export_checkpoint(run, 100).file.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", fail)
    with pytest.raises(RequestFailed) as refusal:
        export_checkpoint(run, 100)

    assert refusal.value.code == FailureCode.DISK_FULL
    (file,) = run.export.iterdir()
    assert file.read_bytes() == before


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    run = small_run(tmp_path, name="漢" * 80)

    own = export_checkpoint(run, 100).file
    given = export_checkpoint(run, 100, output=tmp_path / f"{'x' * 243}.safetensors").file

    assert own.name == f"{'漢' * 26}.safetensors"
    assert own.read_bytes() == given.read_bytes()
    assert list(run.export.iterdir()) == [own]


def test_a_model_with_two_encoders_of_which_one_is_trained_is_named_as_sdxl(tmp_path):
    layer = "text_encoder.encoder.layers.0.self_attn.q_proj"

    one = export_checkpoint(small_run(tmp_path / "one", layer=layer, architecture="sd1"), 100)
    two = export_checkpoint(small_run(tmp_path / "two", layer=layer, architecture="sdxl"), 100)

    rest = "text_model_encoder_layers_0_self_attn_q_proj.alpha"
    assert f"lora_te_{rest}" in load_file(one.file)
    assert f"lora_te1_{rest}" in load_file(two.file)


def test_digests_in_the_header_are_those_of_the_tensors(trained):
    exported = export_checkpoint(trained["sd15"][0], 100)

    raw = exported.file.read_bytes()
    behind_header = raw[8 + int.from_bytes(raw[:8], "little") :]

    with safe_open(exported.file, framework="pt") as file:
        said = file.metadata()
    digest = hashlib.sha256(behind_header).hexdigest()
    assert said["sshs_model_hash"] == digest
    assert said["modelspec.hash_sha256"] == f"0x{digest}"


def test_the_old_digest_is_of_the_place_where_a1111_looks(tmp_path):
    """64 KiB behind the first MiB of the file, as it is with nothing but the words of sd-scripts in its header."""
    run = make_run(tmp_path / "run")
    weights = {
        f"{LAYER}.lora_A.weight": torch.rand(RANK, 400_000),
        f"{LAYER}.lora_B.weight": torch.rand(1, RANK),
    }
    checkpoints_of(run).save(100, weights=weights, state={})
    exported = export_checkpoint(run, 100)
    said = read_header(exported.file).metadata

    save_file(
        load_file(exported.file),
        tmp_path / "plain.safetensors",
        {name: value for name, value in said.items() if name.startswith("ss_")},
    )

    place = (tmp_path / "plain.safetensors").read_bytes()[0x100000:][:0x10000]
    assert said["sshs_legacy_hash"] == hashlib.sha256(place).hexdigest()[:8]
