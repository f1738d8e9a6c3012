"""Adapter files for the tiny pipelines, in every layout there is, and what they should do to a base."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("resnets.0.conv1", "resnets.0.conv2", "resnets.0.time_emb_proj", "samplers.0.conv")
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@dataclass(frozen=True)
class Change:
    """What an adapter adds to the weight of one layer: ``up @ down``, times alpha over rank."""

    part: str
    module: str
    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    def delta(self, shape: torch.Size) -> torch.Tensor:
        product = self.up.flatten(1) @ self.down.flatten(1)
        return product.reshape(shape) * (self.alpha / self.down.shape[0])


def make_changes(
    pipeline, *, parts, rank=4, alpha=1.0, seed=0, strength=1.0, layers=UNET_LAYERS
) -> list[Change]:
    """Return changes of every attention block of some parts, large enough to be seen in pictures of noise."""
    generator = torch.Generator().manual_seed(seed)
    changes = []
    for part in parts:
        ends = layers if part == "unet" else TEXT_LAYERS
        for name, module in getattr(pipeline, part).named_modules():
            if name.endswith(ends) and isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                out, *into = module.weight.shape
                down = torch.randn(rank, *into, generator=generator) / math.prod(into) ** 0.5
                up = torch.randn(out, rank, *[1] * (len(into) - 1), generator=generator) * strength
                changes.append(Change(part, name, down, up, alpha))
    return changes


def apply(pipeline, changes, weight=1.0) -> None:
    """Add the changes to the weights of a pipeline for good: what an adapter should be equal to."""
    for change in changes:
        tensor = getattr(pipeline, change.part).get_submodule(change.module).weight.data
        tensor += weight * change.delta(tensor.shape)


def write_kohya(file: Path, changes, *, is_sdxl=False, sgm_names=False) -> Path:
    """Write them as sd-scripts does: ``alpha`` as a tensor of its own."""
    tensors = {}
    for change in changes:
        name = _kohya_name(change, is_sdxl=is_sdxl, sgm_names=sgm_names)
        tensors[f"{name}.lora_down.weight"] = change.down
        tensors[f"{name}.lora_up.weight"] = change.up
        tensors[f"{name}.alpha"] = torch.tensor(change.alpha)
    return _save(tensors, file)


def write_diffusers(file: Path, changes) -> Path:
    """Write them as diffusers does: the configuration of each part stands in the header."""
    tensors, said = {}, {}
    for change in changes:
        module = _text_model(change)
        tensors[f"{change.part}.{module}.lora_A.weight"] = change.down
        tensors[f"{change.part}.{module}.lora_B.weight"] = change.up
        said |= {f"{change.part}.r": change.down.shape[0], f"{change.part}.lora_alpha": change.alpha}
    return _save(tensors, file, {"format": "pt", "lora_adapter_metadata": json.dumps(said)})


def write_old_diffusers(file: Path, changes) -> Path:
    """Write them as diffusers did before PEFT. It knew no alpha."""
    tensors = {}
    for change in changes:
        module = _text_model(change)
        pair = "lora" if change.part == "unet" else "lora_linear_layer"
        tensors[f"{change.part}.{module}.{pair}.down.weight"] = change.down
        tensors[f"{change.part}.{module}.{pair}.up.weight"] = change.up
    return _save(tensors, file)


def write_peft(file: Path, changes) -> Path:
    """Write them as PEFT saves a UNet alone. The alpha stands in a file beside it, which nobody imports."""
    tensors = {}
    for change in changes:
        tensors[f"base_model.model.{change.module}.lora_A.weight"] = change.down
        tensors[f"base_model.model.{change.module}.lora_B.weight"] = change.up
    return _save(tensors, file)


def _save(tensors, file, metadata=None) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file, metadata)
    return file


def _text_model(change: Change) -> str:
    """Return the name that layers of text encoders have in files, whatever transformers calls them today."""
    is_text = change.part.startswith("text_encoder") and not change.module.startswith("text_")
    return f"text_model.{change.module}" if is_text else change.module


def _kohya_name(change: Change, *, is_sdxl: bool, sgm_names: bool) -> str:
    if change.part == "unet":
        module = _sgm_name(change.module) if sgm_names else change.module
        return f"lora_unet_{module.replace('.', '_')}"
    prefix = {"text_encoder": "lora_te1" if is_sdxl else "lora_te", "text_encoder_2": "lora_te2"}[change.part]
    return f"{prefix}_{_text_model(change).replace('.', '_')}"


def _sgm_name(module: str) -> str:
    """Return the name of an attention layer of the tiny SDXL UNet (one layer a block) in the original code."""
    kind, *rest = module.split(".")
    if kind == "mid_block":
        return ".".join(["middle_block", "1", *rest[2:]])
    block, _attentions, layer, *rest = rest
    number = int(block) * 2 + int(layer) + (kind == "down_blocks")
    return ".".join(["input_blocks" if kind == "down_blocks" else "output_blocks", str(number), "1", *rest])
