"""How large a model is, and an adapter for it: numbers of parameters, read from headers."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from training.weights.families import Family
from training.weights.fitting import Shape, layers_of_model
from training.weights.header import Header, WeightsRefused, read_header

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")

_ORIGINAL_PARTS = (
    ("model.diffusion_model.", "unet"),
    ("first_stage_model.", "vae"),
    ("cond_stage_model.", "text_encoder"),
    ("conditioner.", "text_encoder"),
)
"""How the tensors of single files begin."""

_ATTENTION = {
    "unet": ("_to_q", "_to_k", "_to_v", "_to_out_0"),
    "text": ("_q_proj", "_k_proj", "_v_proj", "_out_proj"),
}
_BLOCKS = {"unet": ("_attentions_",), "text": ("_self_attn_", "_mlp_")}
"""What stands in the names of the layers that ``transformer`` takes."""


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters of a model and, for each rank, of adapters for it."""

    parameters: Mapping[str, int]
    """Of each part: ``unet``, ``vae``, ``text_encoder``, ``text_encoder_2``."""
    adapter: Mapping[str, Mapping[str, int]]
    """Of an adapter of rank 1, by part and then by what it targets: ``attention`` or ``transformer``."""
    layers: Mapping[str, Mapping[str, Shape]]
    """The layers of each part, where they were read."""
    context_width: int = 768
    """How many numbers the denoiser reads for each token."""

    def of_adapter(self, *, rank: int, targets: str | Iterable[str], with_texts: bool) -> int:
        """Return how many numbers an adapter has."""
        parts = ["unet", *(TEXT_ENCODERS if with_texts else ())]
        if isinstance(targets, str):
            return rank * sum(self.adapter.get(part, {}).get(targets, 0) for part in parts)
        endings = tuple("_" + target.replace(".", "_") for target in targets)
        layers = [self.layers.get(part, {}) for part in parts]
        return rank * sum(_of_rank_one(one, lambda name: f"_{name}".endswith(endings)) for one in layers)


_SD1_TEXT = {"attention": 73_728, "transformer": 165_888}
KNOWN = {
    Family.SD1: ModelSize(
        {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
        {"unet": {"attention": 199_296, "transformer": 423_936}, "text_encoder": _SD1_TEXT},
        {},
    ),
    Family.SD2: ModelSize(
        {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
        {
            "unet": {"attention": 207_488, "transformer": 432_128},
            "text_encoder": {"attention": 188_416, "transformer": 423_936},
        },
        {},
        1024,
    ),
    Family.SDXL: ModelSize(
        {
            "unet": 2_567_463_684,
            "vae": 83_653_863,
            "text_encoder": 123_060_480,
            "text_encoder_2": 694_659_840,
        },
        {
            "unet": {"attention": 1_451_520, "transformer": 2_659_840},
            "text_encoder": _SD1_TEXT,
            "text_encoder_2": {"attention": 327_680, "transformer": 737_280},
        },
        {},
        2048,
    ),
}
"""Of models whose files are not at hand, or are in one piece. Counted on models built from their configurations."""


def size_of_model(path: Path | None, family: Family | str | None) -> ModelSize | None:
    """Return the size of the model in a folder or file, or that of its family; None where neither tells."""
    known = KNOWN.get(Family(family)) if family else None
    try:
        if path is not None and path.is_dir():
            return _of_folder(path)
        if path is not None and path.is_file() and known is not None:
            return replace(known, parameters=_of_file(read_header(path.resolve())))
    except (WeightsRefused, OSError):
        return known
    return known


def _of_folder(path: Path) -> ModelSize:
    read = layers_of_model(path)
    layers = read.parts
    parameters = {
        part: sum(_count(read_header(file.resolve())) for file in _weights_of(path / part))
        for part in ("unet", "vae", *TEXT_ENCODERS)
        if (path / part).is_dir()
    }
    adapter = {part: _adapter_for(part, layers[part]) for part in layers}
    return ModelSize(parameters, adapter, layers, read.context_width or ModelSize.context_width)


def _adapter_for(part: str, layers: Mapping[str, Shape]) -> dict[str, int]:
    family = "unet" if part == "unet" else "text"
    inside = {name: shape for name, shape in layers.items() if any(one in name for one in _BLOCKS[family])}
    return {
        "attention": _of_rank_one(inside, lambda name: name.endswith(_ATTENTION[family])),
        "transformer": _of_rank_one(inside, lambda _: True),
    }


def _of_rank_one(layers: Mapping[str, Shape], is_meant: Callable[[str], bool]) -> int:
    return sum(outputs + inputs for name, (outputs, inputs) in layers.items() if is_meant(name))


def _weights_of(folder: Path) -> list[Path]:
    """Return the files with the weights of a part, of which some folders hold a second, smaller format."""
    files = sorted(folder.glob("*.safetensors"))
    return [file for file in files if ".fp16." not in file.name] or files


def _of_file(header: Header) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, tensor in header.tensors.items():
        for beginning, part in _ORIGINAL_PARTS:
            if name.startswith(beginning):
                found[part] = found.get(part, 0) + math.prod(tensor.shape)
    return found


def _count(header: Header) -> int:
    return sum(math.prod(tensor.shape) for tensor in header.tensors.values())
