"""Which adapter is in a file: golden headers of the real families, and everything that is refused."""

import json
import re

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

from training.pipelines.adapters import load_adapter, remove_adapter
from training.tests import weight_files
from training.tests.weight_files import write_tensors
from training.tests.weight_headers import lora_shapes, write_header, write_sd1_adapter
from training.weights import Layout, WeightsRefused, read_header, recognise_adapter
from training.weights.adapters import SCALARS

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
DOTTED = "down_blocks.0.attentions.0.transformer_blocks.0"
FLUX = "transformer.single_transformer_blocks.0.attn"


def recognise(path):
    return recognise_adapter(read_header(path, scalars_ending=SCALARS))


@pytest.fixture(scope="module")
def sd15():
    return weight_files.add_adapter(weight_files.sd15_parts())


@pytest.fixture(scope="module")
def sdxl():
    return weight_files.add_adapter(weight_files.sdxl_parts())


def test_a_kohya_file_of_stable_diffusion_1_is_recognised(tmp_path, sd15):
    path = write_tensors(tmp_path / "a.safetensors", weight_files.kohya(sd15, alpha=2))

    facts = recognise(path)

    assert (facts.layout, facts.family, facts.rank, facts.alpha) == (Layout.KOHYA, "sd1", 4, 2.0)
    assert facts.targets == {"text_encoder": 72, "unet": 192}


def test_a_kohya_file_of_stable_diffusion_xl_is_recognised(tmp_path, sdxl):
    path = write_tensors(tmp_path / "a.safetensors", weight_files.kohya(sdxl, is_sdxl=True))

    facts = recognise(path)

    assert (facts.layout, facts.family, facts.rank, facts.alpha) == (Layout.KOHYA, "sdxl", 4, 2.0)
    assert facts.targets == {"text_encoder": 72, "text_encoder_2": 192, "unet": 722}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_other_layouts_tell_the_same(tmp_path, sd15, sdxl, family):
    states = {"sd1": sd15, "sdxl": sdxl}[family]
    said = {"unet.lora_alpha": 2, "unet.r": 4}
    metadata = {"lora_adapter_metadata": json.dumps(said)}

    saved = recognise(write_tensors(tmp_path / "a.safetensors", weight_files.diffusers(states), metadata))
    by_peft = recognise(write_tensors(tmp_path / "b.safetensors", weight_files.peft(states)))

    assert (saved.layout, saved.family, saved.rank, saved.alpha) == (Layout.DIFFUSERS, family, 4, 2.0)
    assert (by_peft.layout, by_peft.family, by_peft.rank, by_peft.alpha) == (Layout.PEFT, family, 4, None)
    assert saved.targets["unet"] == by_peft.targets["unet"] == {"sd1": 192, "sdxl": 722}[family]


def test_what_diffusers_saves_is_read_with_its_scale(tmp_path):
    parts = {"unet": weight_files.tiny_unet(768), "text_encoder": weight_files.tiny_text_encoder()}
    states = weight_files.add_adapter(parts, rank=8, alpha=3)

    facts = recognise(weight_files.save_with_diffusers(tmp_path, parts, states))

    assert (facts.layout, facts.family, facts.rank, facts.alpha) == (Layout.DIFFUSERS, "sd1", 8, 3.0)


@pytest.mark.parametrize(
    ("width", "family"), [(768, "sd1"), (1024, "sd2"), (2048, "sdxl"), (128, "other"), (4096, "other")]
)
def test_the_width_of_the_cross_attention_tells_the_family(tmp_path, width, family):
    assert recognise(write_sd1_adapter(tmp_path / "a.safetensors", width=width)).family == family


@pytest.mark.parametrize(
    ("layers", "family"),
    [
        ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": (640, 640)}, "sdxl"),
        ({f"{UNET[:-1]}9_attn1_to_q": (1280, 1280)}, "sdxl"),
        ({"lora_unet_double_blocks_0_img_attn_qkv": (3072, 9216)}, "flux"),
        (
            {
                f"{UNET}_attn1_to_q": (320, 320),
                "lora_te2_text_model_encoder_layers_0_mlp_fc1": (1280, 5120),
            },
            "sdxl",
        ),
    ],
)
def test_without_cross_attention_the_place_of_layers_tells_the_family(tmp_path, layers, family):
    assert (
        recognise(write_header(tmp_path / "a.safetensors", lora_shapes(layers, alpha=False))).family == family
    )


@pytest.mark.parametrize(
    ("names", "family"),
    [
        ({f"{FLUX}.to_q": 3072}, "flux"),
        ({"transformer.transformer_blocks.0.attn.to_q": 3072}, "flux"),
        ({"transformer.transformer_blocks.0.attn.to_q": 1536}, "sd3"),
        ({"transformer.transformer_blocks.0.attn.to_q": 2432}, "sd3"),
        ({"transformer.transformer_blocks.0.attn.to_q": 64}, "other"),
    ],
)
def test_adapters_of_transformers_are_told_apart(tmp_path, names, family):
    shapes = {}
    for name, width in names.items():
        shapes |= {f"{name}.lora_A.weight": (4, width), f"{name}.lora_B.weight": (width, 4)}

    assert recognise(write_header(tmp_path / "a.safetensors", shapes)).family == family


def test_where_shapes_say_nothing_the_metadata_are_believed(tmp_path):
    shapes = lora_shapes({f"{UNET}_attn1_to_q": (320, 320)}, alpha=False)
    said = write_header(tmp_path / "a.safetensors", shapes, {"ss_base_model_version": "sd_v1"})
    silent = write_header(tmp_path / "b.safetensors", shapes)

    assert recognise(said).family == "sd1"
    with pytest.raises(WeightsRefused, match="which family"):
        recognise(silent)


def test_shapes_are_believed_before_metadata(tmp_path):
    path = write_sd1_adapter(
        tmp_path / "a.safetensors", metadata={"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
    )

    assert recognise(path).family == "sd1"


def test_rank_and_scale_are_those_of_the_largest_layer(tmp_path):
    shapes = lora_shapes({f"{UNET}_attn2_to_k": (768, 320)}, rank=4)
    shapes |= lora_shapes({f"{UNET}_attn2_to_v": (768, 320)}, rank=16)
    values = {f"{UNET}_attn2_to_k.alpha": 1.0, f"{UNET}_attn2_to_v.alpha": 8.0}

    facts = recognise(write_header(tmp_path / "a.safetensors", shapes, values=values))

    assert (facts.rank, facts.alpha) == (16, 8.0)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"modelspec.trigger_phrase": "zwx cat, in ink"}, ("zwx cat", "in ink")),
        ({"ss_tag_frequency": json.dumps({"10_zwx": {"zwx": 12, "garden": 3}})}, ("zwx",)),
        ({"ss_tag_frequency": json.dumps({"a": {"zwx": 2}, "b": {"zwx": 4, "qqq": 4}})}, ("zwx", "qqq")),
        ({"ss_tag_frequency": json.dumps({"a": {f"tag {n}": 1 for n in range(30)}})}, ()),
        ({"ss_tag_frequency": "{"}, ()),
        ({"ss_tag_frequency": json.dumps([1, {"a": {"b": 1.5}}])}, ()),
        ({"ss_tag_frequency": json.dumps({"a": {"b": None, "c": []}})}, ()),
        ({"modelspec.trigger_phrase": " \u202e zwx\x00\n ,, "}, ("zwx",)),
        ({}, ()),
    ],
)
def test_trigger_words_are_read_and_made_harmless(tmp_path, metadata, words):
    assert recognise(write_sd1_adapter(tmp_path / "a.safetensors", metadata=metadata)).trigger_words == words


def test_names_of_folders_on_the_trainers_machine_are_left_out(tmp_path):
    metadata = {
        "ss_sd_model_name": "D:\\people\\ann\\secret\\anything-v5.safetensors",
        "ss_output_name": "zwx",
    }

    facts = recognise(write_sd1_adapter(tmp_path / "a.safetensors", metadata=metadata))

    assert (facts.base_model_name, facts.title) == ("anything-v5", "zwx")


CROSS = {f"{UNET}_attn2_to_k": (768, 320)}
PLAIN = lora_shapes(CROSS)
REFUSED = {
    "nothing": ({}, "no LoRA adapter"),
    "other tensors": ({"weight": (2, 2)}, "no LoRA adapter"),
    "a model": ({"model.diffusion_model.x.weight": (2, 2)}, "a whole model"),
    "an embedding": ({"emb_params": (2, 768)}, "textual inversion"),
    "a ControlNet": ({"control_model.time_embed.0.weight": (2, 2)}, "ControlNet"),
    "LoHa": ({f"{UNET}_attn2_to_k.hada_w1_a": (768, 4)}, "LoHa"),
    "LoKr": ({f"{UNET}_attn2_to_k.lokr_w1": (4, 4)}, "LoKr"),
    "OFT": ({f"{UNET}_attn2_to_k.oft_blocks": (4, 4, 4)}, "OFT"),
    "a difference": ({f"{UNET}_attn2_to_k.diff": (320, 768)}, "full difference"),
    "differences beside LoRA": (PLAIN | {"lora_unet_conv_in.diff_b": (320,)}, "full difference"),
    "Tucker": (PLAIN | {f"{UNET}_attn2_to_k.lora_mid.weight": (4, 4, 3, 3)}, "Tucker"),
    "DoRA": (PLAIN | {f"{UNET}_attn2_to_k.dora_scale": (320, 1)}, "DoRA"),
    "DoRA of diffusers": (
        {
            f"unet.{DOTTED}.attn2.to_k.lora_A.weight": (4, 768),
            f"unet.{DOTTED}.attn2.to_k.lora_B.weight": (320, 4),
            f"unet.{DOTTED}.attn2.to_k.lora_magnitude_vector": (320,),
        },
        "DoRA",
    ),
    "text encoders only": (
        lora_shapes({"lora_te_text_model_encoder_layers_0_mlp_fc1": (768, 3072)}),
        "text encoders only",
    ),
    "two layouts": (PLAIN | {f"unet.{DOTTED}.attn2.to_v.lora_A.weight": (4, 768)}, "several at once"),
    "no part": (
        {f"{DOTTED}.attn2.to_k.lora_A.weight": (4, 768), f"{DOTTED}.attn2.to_k.lora_B.weight": (320, 4)},
        "no layout",
    ),
    "an unknown part": (
        {
            "base_model.model.body.0.lora_A.weight": (4, 768),
            "base_model.model.body.0.lora_B.weight": (4, 4),
        },
        "no part of a model",
    ),
    "two families": (PLAIN | lora_shapes({f"{UNET}_attn2_to_v": (2048, 640)}), "several families"),
    "ranks that disagree": (
        {f"{UNET}_attn2_to_k.lora_down.weight": (4, 768), f"{UNET}_attn2_to_k.lora_up.weight": (320, 8)},
        "do not fit each other",
    ),
    "half a layer": ({f"{UNET}_attn2_to_k.lora_down.weight": (4, 768)}, "is missing"),
    "a lone alpha": (PLAIN | {f"{UNET}_attn2_to_v.alpha": ()}, "is missing"),
    "an empty layer": (
        {f"{UNET}_attn2_to_k.lora_down.weight": (0, 768), f"{UNET}_attn2_to_k.lora_up.weight": (320, 0)},
        "do not fit each other",
    ),
    "three dimensions": (
        {
            f"{UNET}_attn2_to_k.lora_down.weight": (4, 768, 1),
            f"{UNET}_attn2_to_k.lora_up.weight": (320, 4, 1),
        },
        "do not fit each other",
    ),
    "a large second factor": (
        {
            f"{UNET}_attn2_to_k.lora_down.weight": (4, 768, 3, 3),
            f"{UNET}_attn2_to_k.lora_up.weight": (320, 4, 3, 3),
        },
        "do not fit each other",
    ),
    "a bias": (PLAIN | {f"{UNET}_attn2_to_k.lora_up.bias": (320,)}, "no part of a LoRA"),
    "a scale of two numbers": (PLAIN | {f"{UNET}_attn2_to_k.alpha": (2,)}, "is no number"),
    "Stable Diffusion 3 of Kohya": (
        lora_shapes({"lora_unet_joint_blocks_0_x_block_attn_qkv": (1536, 4608)}),
        "Stable Diffusion 3",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_not_be_loaded_whole_is_refused_with_the_reason(tmp_path, what):
    shapes, reason = REFUSED[what]
    path = write_header(tmp_path / "a.safetensors", shapes)

    with pytest.raises(WeightsRefused, match=reason):
        recognise(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(tmp_path, value):
    with pytest.raises(WeightsRefused, match="scale"):
        recognise(write_sd1_adapter(tmp_path / "a.safetensors", alpha=value))


def test_whole_numbers_are_no_weights(tmp_path):
    with pytest.raises(WeightsRefused, match="floating-point"):
        recognise(write_header(tmp_path / "a.safetensors", lora_shapes(CROSS, alpha=False), dtype="I64"))


@pytest.mark.parametrize("said", ["{", "[]", '{"unet.lora_alpha": NaN}', '{"a": 1, "a": 2}'])
def test_metadata_of_diffusers_that_cannot_be_read_are_refused(tmp_path, sd15, said):
    tensors = weight_files.diffusers(sd15)

    with pytest.raises(WeightsRefused, match="lora_adapter_metadata"):
        recognise(write_tensors(tmp_path / "a.safetensors", tensors, {"lora_adapter_metadata": said}))


# ---- The truth: what diffusers really does with a file ----


@pytest.fixture(scope="module")
def pipeline():
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=8, layers_per_block=1)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=weight_files.tiny_text_encoder(),
        tokenizer=None,
        unet=weight_files.tiny_unet(),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    parts = {"unet": weight_files.tiny_unet(), "text_encoder": weight_files.tiny_text_encoder()}
    return weight_files.add_adapter(parts)


def layers_in(pipeline):
    parts = (pipeline.unet, pipeline.text_encoder)
    return sum("a" in getattr(module, "lora_A", {}) for part in parts for module in part.modules())


def loaded_layers(pipeline, path):
    """Return how many layers diffusers gives an adapter; none when it refuses the file."""
    try:
        pipeline.load_lora_weights(str(path), adapter_name="a")
    except (ValueError, RuntimeError, KeyError):
        return 0
    layers = layers_in(pipeline)
    pipeline.unload_lora_weights()
    return layers


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
def test_the_engine_loads_every_layer_of_what_is_taken(tmp_path, pipeline, tiny, layout):
    path = write_tensors(tmp_path / "a.safetensors", getattr(weight_files, layout)(tiny))

    facts = recognise(path)

    load_adapter(pipeline, path, name="a", label="a")
    layers = layers_in(pipeline)
    remove_adapter(pipeline, "a")
    assert layers == len(facts.layers)


@pytest.mark.parametrize("ending", ["hada_w1_a", "lokr_w1", "oft_blocks", "diff", "lora_mid.weight"])
def test_diffusers_really_refuses_the_relatives_of_lora(tmp_path, pipeline, tiny, ending):
    tensors = weight_files.kohya(tiny)
    first = next(iter(tensors)).partition(".")[0]
    path = write_tensors(tmp_path / "a.safetensors", tensors | {f"{first}.{ending}": torch.zeros(4, 4)})

    assert loaded_layers(pipeline, path) == 0
    with pytest.raises(WeightsRefused):
        recognise(path)


def test_diffusers_really_loads_nothing_that_does_not_name_its_part(tmp_path, pipeline, tiny):
    path = write_tensors(tmp_path / "a.safetensors", tiny["unet"])

    assert loaded_layers(pipeline, path) == 0
    with pytest.raises(WeightsRefused, match="no layout"):
        recognise(path)


@pytest.mark.parametrize(
    "old",
    [
        (".lora_A.weight", ".lora.down.weight", ".lora_B.weight", ".lora.up.weight"),
        (".lora_A.weight", ".lora_A.default.weight", ".lora_B.weight", ".lora_B.default.weight"),
    ],
)
def test_older_spellings_of_diffusers_are_loaded_whole(tmp_path, pipeline, tiny, old):
    tensors = weight_files.diffusers({"unet": tiny["unet"]})
    for before, after in zip(old[::2], old[1::2], strict=True):
        tensors = {name.replace(before, after): tensor for name, tensor in tensors.items()}
    path = write_tensors(tmp_path / "a.safetensors", tensors)

    facts = recognise(path)

    load_adapter(pipeline, path, name="a", label="a")
    layers = layers_in(pipeline)
    remove_adapter(pipeline, "a")
    assert layers == len(facts.layers) == len(tiny["unet"]) // 2


def test_the_oldest_spelling_of_attention_is_loaded_whole(tmp_path, pipeline, tiny):
    tensors = {}
    for name, tensor in tiny["unet"].items():
        match = re.fullmatch(r"(.+\.attn[12])\.(to_[qkv]|to_out)(?:\.0)?\.lora_(A|B)\.weight", name)
        if match:
            path, layer, factor = match.groups()
            tensors[f"unet.{path}.processor.{layer}_lora.{'down' if factor == 'A' else 'up'}.weight"] = tensor
    path = write_tensors(tmp_path / "a.safetensors", tensors)

    facts = recognise(path)

    load_adapter(pipeline, path, name="a", label="a")
    layers = layers_in(pipeline)
    remove_adapter(pipeline, "a")
    assert layers == len(facts.layers) == len(tensors) // 2
    assert {layer.name for layer in facts.layers} <= {
        name.removesuffix(".lora_A.weight") for name in tiny["unet"]
    }
