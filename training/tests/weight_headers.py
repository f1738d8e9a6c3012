"""Headers of weights without weights behind them, for tests."""

import json
import math
import struct
from pathlib import Path

BITS = {"F16": 16, "BF16": 16, "F32": 32, "I64": 64}


def write_header(path: Path, shapes, metadata=None, *, dtype="F16", values=None, raw=None) -> Path:
    """Write a file with the header of these tensors. Behind it are zeros that take no room, and the values of scalars."""
    header, position, written = {}, 0, {}
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, shape in shapes.items():
        size = math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        if values and name in values:
            written[position] = struct.pack("<e" if dtype == "F16" else "<f", values[name])
        position += size
    text = json.dumps(header).encode() if raw is None else raw
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        start = file.tell()
        file.truncate(start + position)
        for offset, value in written.items():
            file.seek(start + offset)
            file.write(value)
    return path


def lora_shapes(layers, *, rank=4, alpha=True):
    """Return the tensors of a LoRA in Kohya's layout, from (inputs, outputs) of each layer by its name there."""
    shapes = {}
    for name, (inputs, outputs) in layers.items():
        shapes[f"{name}.lora_down.weight"] = (rank, inputs)
        shapes[f"{name}.lora_up.weight"] = (outputs, rank)
        if alpha:
            shapes[f"{name}.alpha"] = ()
    return shapes


SD1_LAYERS = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (768, 320),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (320, 320),
}


def write_sd1_adapter(path: Path, *, width=768, rank=4, alpha=2.0, metadata=None, mark=0.0) -> Path:
    """Write a small adapter as for Stable Diffusion 1. Another mark makes it another file."""
    layers = {name: (width if "attn2" in name else inputs, out) for name, (inputs, out) in SD1_LAYERS.items()}
    shapes = lora_shapes(layers, rank=rank)
    values = {name: alpha for name in shapes if name.endswith(".alpha")}
    return write_header(path, shapes, {**(metadata or {}), "mark": str(mark)}, values=values)
