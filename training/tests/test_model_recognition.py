"""What a base model is, told by its configurations and by the header of its file, and which adapters fit it."""

import json
import shutil

import pytest

from training.starter import MODEL_DIR
from training.tests import weight_files
from training.tests.weight_files import write_tensors
from training.tests.weight_headers import write_header, write_sd1_adapter
from training.weights import layers_of_model, misfit, read_header, recognise_adapter, recognise_model
from training.weights.adapters import SCALARS

CROSS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
WHOLE = {
    "cond_stage_model.transformer.text_model.x.weight": (2, 2),
    "first_stage_model.encoder.x.weight": (2, 2),
    "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
}


def write_folder(path, *, pipeline="StableDiffusionPipeline", width=768, channels=4, sample=64):
    """Write a folder in the layout of diffusers, with configurations and hardly any weights."""
    components = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
    index = {
        "_class_name": pipeline,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    for name, kind in components.items():
        index[name] = ["diffusers", kind]
        write_header(path / name / "model.safetensors", {"x": (2,)})
    (path / "scheduler").mkdir()
    (path / "model_index.json").write_text(json.dumps(index))
    unet = {"cross_attention_dim": width, "in_channels": channels, "sample_size": sample}
    (path / "unet" / "config.json").write_text(json.dumps(unet))
    (path / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [128, 256, 512, 512]}))
    return path


def test_the_starter_model_is_recognised():
    facts = recognise_model(MODEL_DIR)

    assert (facts.family, facts.pipeline, facts.side, facts.problem) == (
        "other",
        "StableDiffusionPipeline",
        64,
        "",
    )
    assert 5_000_000 < facts.size_bytes < 30_000_000


@pytest.mark.parametrize(
    ("pipeline", "width", "sample", "family", "side"),
    [
        ("StableDiffusionPipeline", 768, 64, "sd1", 512),
        ("StableDiffusionPipeline", 1024, 96, "sd2", 768),
        ("StableDiffusionXLPipeline", 2048, 128, "sdxl", 1024),
        ("StableDiffusionPipeline", [768, 1024], None, "other", None),
        ("KandinskyPipeline", 32, 10**9, "other", None),
    ],
)
def test_a_folder_is_recognised_by_its_configurations(tmp_path, pipeline, width, sample, family, side):
    facts = recognise_model(write_folder(tmp_path / "m", pipeline=pipeline, width=width, sample=sample))

    assert (facts.family, facts.pipeline, facts.side, facts.problem) == (family, pipeline, side, "")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda path: (path / "model_index.json").unlink(), "layout of diffusers"),
        (lambda path: (path / "model_index.json").write_text("{"), "does not name a pipeline"),
        (
            lambda path: (path / "model_index.json").write_text('{"_class_name": "a b"}'),
            "does not name a pipeline",
        ),
        (
            lambda path: (path / "model_index.json").write_text(
                '{"_class_name": "StableDiffusionPipeline", "../vae": ["diffusers", "AutoencoderKL"]}'
            ),
            "no known way",
        ),
        (lambda path: shutil.rmtree(path / "vae"), "Its vae is missing"),
        (lambda path: (path / "unet" / "model.safetensors").unlink(), "weights of its unet are missing"),
        (
            lambda path: (path / "unet" / "model.safetensors").rename(path / "unet" / "model.bin"),
            "could hold code",
        ),
        (
            lambda path: (path / "unet" / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model-2.safetensors"}}'
            ),
            "Some of the weights",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, change, problem):
    path = write_folder(tmp_path / "m")
    change(path)

    assert problem in recognise_model(path).problem


@pytest.mark.parametrize("pipeline", ["StableDiffusionInpaintPipeline", "StableVideoDiffusionPipeline"])
def test_pipelines_for_other_purposes_are_refused(tmp_path, pipeline):
    assert "text alone" in recognise_model(write_folder(tmp_path / "m", pipeline=pipeline)).problem


def test_a_model_that_paints_into_pictures_is_refused(tmp_path):
    assert "inpainting" in recognise_model(write_folder(tmp_path / "m", channels=9)).problem


@pytest.mark.parametrize(
    ("width", "family", "side"), [(768, "sd1", 512), (1024, "sd2", 768), (2048, "sdxl", 1024)]
)
def test_a_single_file_is_recognised_by_its_header(tmp_path, width, family, side):
    facts = recognise_model(write_header(tmp_path / "a.safetensors", WHOLE | {CROSS: (320, width)}))

    assert (facts.family, facts.side, facts.problem) == (family, side, "")
    assert facts.pipeline == ("StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline")
    assert facts.size_bytes == (tmp_path / "a.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("name", "shapes", "problem"),
    [
        ("a.ckpt", {}, "could hold code"),
        ("a.txt", {}, "Only .safetensors"),
        ("a.safetensors", {"x": (1,)}, "no model of a kind"),
        ("a.safetensors", {"lora_unet_x.lora_down.weight": (1, 1)}, "an adapter"),
        ("a.safetensors", {CROSS: (320, 768)}, "no text encoder"),
        ("a.safetensors", {CROSS: (320, 768), "cond_stage_model.x": (1,)}, "no VAE"),
        (
            "a.safetensors",
            WHOLE | {CROSS: (320, 768), "model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)},
            "inpainting",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, name, shapes, problem):
    assert problem in recognise_model(write_header(tmp_path / name, shapes)).problem


def test_a_damaged_file_is_a_problem_and_no_failure(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"damaged")

    assert "no .safetensors file" in recognise_model(tmp_path / "a.safetensors").problem


@pytest.mark.parametrize(
    ("name", "family"),
    [("double_blocks.0.img_attn.qkv.weight", "flux"), ("joint_blocks.0.x_block.attn.qkv.weight", "sd3")],
)
def test_files_of_transformers_are_recognised(tmp_path, name, family):
    path = write_header(tmp_path / "a.safetensors", {f"model.diffusion_model.{name}": (4, 4)})

    assert (recognise_model(path).family, recognise_model(path).problem) == (family, "")


# ---- Which adapters fit ----


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """The folder of a tiny model, and its parts with an adapter."""
    folder = tmp_path_factory.mktemp("model")
    parts = {"unet": weight_files.tiny_unet(), "text_encoder": weight_files.tiny_text_encoder()}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder, weight_files.add_adapter(parts)


def facts_of(path):
    return recognise_adapter(read_header(path, scalars_ending=SCALARS))


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
def test_an_adapter_fits_the_model_it_was_made_for(tmp_path, tiny_model, layout):
    folder, states = tiny_model
    adapter = write_tensors(tmp_path / "a.safetensors", getattr(weight_files, layout)(states))

    assert misfit(facts_of(adapter), layers_of_model(folder)) == ""


def test_an_adapter_of_another_width_does_not_fit(tmp_path, tiny_model):
    other = weight_files.add_adapter({"unet": weight_files.tiny_unet(48)})
    adapter = write_tensors(tmp_path / "a.safetensors", weight_files.kohya(other))

    assert "a context of 48 numbers, that of the model one of 32" in misfit(
        facts_of(adapter), layers_of_model(tiny_model[0])
    )


def test_an_adapter_for_layers_that_are_not_there_does_not_fit(tmp_path, tiny_model):
    folder, states = tiny_model
    tensors = weight_files.diffusers(states)
    more = {name.replace("down_blocks.0", "down_blocks.7"): tensor for name, tensor in tensors.items()}
    other_size = {
        name: tensor[:, :5] if name.endswith("attn1.to_q.lora_A.weight") else tensor
        for name, tensor in tensors.items()
    }

    for changed, reason in ((tensors | more, "does not have"), (other_size, "numbers into")):
        adapter = write_tensors(tmp_path / "a.safetensors", changed)
        assert reason in misfit(facts_of(adapter), layers_of_model(folder))


def test_an_adapter_for_a_second_text_encoder_does_not_fit_a_model_with_one(tmp_path, tiny_model):
    folder, states = tiny_model
    tensors = weight_files.diffusers(states | {"text_encoder_2": states["text_encoder"]})

    reason = misfit(facts_of(write_tensors(tmp_path / "a.safetensors", tensors)), layers_of_model(folder))

    assert "text_encoder_2, which the model does not have" in reason


def test_of_a_single_file_the_width_is_compared(tmp_path):
    model = layers_of_model(write_header(tmp_path / "m.safetensors", WHOLE | {CROSS: (320, 768)}))
    fitting = facts_of(write_sd1_adapter(tmp_path / "a.safetensors"))
    other = facts_of(write_sd1_adapter(tmp_path / "b.safetensors", width=1024))

    assert misfit(fitting, model) == ""
    assert "context of 1024" in misfit(other, model)


def test_later_transformers_spell_text_encoders_otherwise_and_adapters_fit_all_the_same(tmp_path, tiny_model):
    folder, states = tiny_model
    bare = weight_files.diffusers(states)
    spelled = {
        name.replace("text_encoder.encoder", "text_encoder.text_model.encoder"): tensor
        for name, tensor in bare.items()
    }
    assert bare.keys() != spelled.keys()

    for tensors in (bare, spelled):
        adapter = write_tensors(tmp_path / "a.safetensors", tensors)
        assert misfit(facts_of(adapter), layers_of_model(folder)) == ""
