"""The names and shapes in exported files of real models, which A1111, ComfyUI and InvokeAI look up by name.

Built on the meta device, where a model has shapes and no weights. The lists beside this file are what was compared with the
rules of those programs; they change only when somebody means it.
"""

import re
from pathlib import Path

import pytest
import torch

from training.tests.weight_files import sd15_parts, sdxl_parts
from training.trainer.export import to_diffusers, to_kohya
from training.trainer.networks import layer_names

GOLDEN = Path(__file__).parent / "golden"
RANK, ALPHA = 16, 8.0

UNET = re.compile(
    r"lora_unet_(?:mid_block_attentions_0|(?:down|up)_blocks_\d_attentions_\d)_"
    r"(?:proj_in|proj_out|transformer_blocks_\d_(?:attn[12]_to_(?:q|k|v|out_0)|ff_net_(?:0_proj|2)))"
)
TEXT = re.compile(r"lora_te[12]?_text_model_encoder_layers_\d+_(?:self_attn_(?:q|k|v|out)_proj|mlp_fc[12])")
"""Every layer that these programs find by the names of diffusers; no reader knows one that is not spelt so."""


def weights_of(parts, targets):
    """Return an adapter of the layers that a training changes, as a checkpoint has it, without numbers."""
    weights = {}
    for part, module in parts.items():
        for name in layer_names(part, module, targets):
            shape = module.get_submodule(name).weight.shape
            outputs, inputs, *kernel = shape
            down, up = (RANK, inputs, *kernel), (outputs, RANK, *[1] * len(kernel))
            weights[f"{part}.{name}.lora_A.weight"] = torch.empty(down, device="meta")
            weights[f"{part}.{name}.lora_B.weight"] = torch.empty(up, device="meta")
    return weights


@pytest.fixture(scope="module")
def models():
    return {"sd15": sd15_parts(), "sdxl": sdxl_parts()}


def kohya(models, name, targets="transformer"):
    weights = weights_of(models[name], targets)
    return to_kohya(weights, alpha=ALPHA, has_two_encoders=name == "sdxl")


def modules(tensors):
    """Return each layer of an adapter and the shapes of its factors, as a line of a golden list."""
    names = sorted({name.split(".")[0] for name in tensors})
    return [
        " ".join(
            [name]
            + [
                "x".join(map(str, tensors[f"{name}.{kind}.weight"].shape))
                for kind in ("lora_down", "lora_up")
            ]
        )
        for name in names
    ]


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_names_and_shapes_are_those_of_the_list(models, name):
    assert modules(kohya(models, name)) == (GOLDEN / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("name", "targets", "counts"),
    [
        ("sd15", "transformer", {"lora_unet": 192, "lora_te": 72}),
        ("sd15", "attention", {"lora_unet": 128, "lora_te": 48}),
        ("sdxl", "transformer", {"lora_unet": 722, "lora_te1": 72, "lora_te2": 192}),
        ("sdxl", "attention", {"lora_unet": 560, "lora_te1": 48, "lora_te2": 128}),
    ],
)
def test_so_many_layers_as_sd_scripts_trains(models, name, targets, counts):
    found = {}
    for module in {tensor.split(".")[0] for tensor in kohya(models, name, targets)}:
        prefix = re.match(r"lora_[a-z0-9]+", module)[0]
        found[prefix] = found.get(prefix, 0) + 1

    assert found == counts


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_every_layer_is_spelt_as_a1111_and_comfyui_look_it_up(models, name):
    tensors = kohya(models, name)

    strays = [
        module
        for module in {tensor.split(".")[0] for tensor in tensors}
        if not UNET.fullmatch(module) and not TEXT.fullmatch(module)
    ]
    assert strays == []
    for module in {tensor.split(".")[0] for tensor in tensors}:
        parts = {tensor.removeprefix(module) for tensor in tensors if tensor.startswith(f"{module}.")}
        assert parts == {".lora_down.weight", ".lora_up.weight", ".alpha"}


@pytest.mark.parametrize(("name", "width"), [("sd15", 768), ("sdxl", 2048)])
def test_invokeai_tells_the_base_by_the_width_of_the_cross_attention(models, name, width):
    for targets in ("attention", "transformer"):
        tensors = kohya(models, name, targets)
        widths = {
            tensor.shape[1]
            for key, tensor in tensors.items()
            if key.startswith("lora_unet_") and re.search(r"attn2_to_[kv]\.lora_down\.weight$", key)
        }
        assert widths == {width}


@pytest.mark.parametrize(("name", "prefixes"), [("sd15", {"lora_te_"}), ("sdxl", {"lora_te1_", "lora_te2_"})])
def test_text_encoders_have_the_prefix_of_their_family(models, name, prefixes):
    assert {
        key[: key.index("_text_model") + 1] for key in kohya(models, name) if "_text_model" in key
    } == prefixes


def test_the_real_alpha_stands_in_every_layer(models):
    alphas = {float(tensor) for key, tensor in kohya(models, "sd15").items() if key.endswith(".alpha")}

    assert alphas == {ALPHA}


@pytest.mark.parametrize(("name", "millions"), [("sd15", 6.78), ("sdxl", 42.6)])
def test_the_denoisers_part_is_as_large_as_that_of_others(models, name, millions):
    """Of rank 16: 13.6 MB in half precision for SD 1.5, and 85 MB for SDXL."""
    tensors = kohya({name: {"unet": models[name]["unet"]}}, name)

    numbers = sum(tensor.numel() for key, tensor in tensors.items() if not key.endswith(".alpha"))

    assert numbers == pytest.approx(millions * 1e6, rel=0.002)


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_diffusers_finds_each_layer_under_its_part(models, name):
    tensors = to_diffusers(weights_of(models[name], "transformer"))

    assert all("lora" in key for key in tensors)
    parts = {key.split(".")[0] for key in tensors}
    assert parts == set(models[name])
    assert all(key.split(".")[1] == "text_model" for key in tensors if key.startswith("text_encoder"))
