"""The ways in which files of adapters name their tensors, read into one list of layers.

To add a layout, add a member to :class:`Layout`, a pattern to the tables below, and a golden file to the tests. What is
taken here must be what diffusers loads whole: it would leave out a tensor with another name without a word.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from training.weights.alphas import Alphas
from training.weights.header import Header, Tensor, WeightsRefused, parse_finite_json

ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers keeps the configuration of an adapter, in the metadata of its file."""

ALPHA = ".alpha"
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


class Layout(StrEnum):
    """How the tensors of an adapter are named."""

    KOHYA = "kohya"
    DIFFUSERS = "diffusers"
    PEFT = "peft"


class NoAdapter(WeightsRefused):
    """There is no LoRA in it."""

    code = "no_adapter"


class UnsupportedAdapter(WeightsRefused):
    """It is an adapter, but one that could not be used, or only in part."""

    code = "unsupported_adapter"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model that an adapter changes."""

    part: str
    """Which part of a pipeline it belongs to: ``unet``, ``transformer``, ``text_encoder``, ``text_encoder_2``."""
    name: str
    """The path of the layer within its part; with underscores for dots where the file has them."""
    inputs: int
    outputs: int
    rank: int
    alpha: float | None
    """What the change is scaled by, times the rank. None: the file does not say, and the rank is taken."""


@dataclass
class _Tensors:
    """What a file has for one layer."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


_KOHYA_PARTS = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_KOHYA = re.compile(
    r"(lora_unet_|lora_te_|lora_te1_|lora_te2_)([^.]+)\.(lora_down\.weight|lora_up\.weight|alpha)"
)

_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2")
_DOTTED_PREFIXES = tuple(f"{part}." for part in _PARTS)
_PEFT_PREFIX = "base_model.model."
_DOTTED = re.compile(
    r"(.+?)(?:\.(lora_A|lora_B)(?:\.default)?\.weight|(?:\.lora|_lora|\.lora_linear_layer)\.(down|up)\.weight)"
)
_KINDS = {"lora_A": "down", "lora_B": "up", "lora_down.weight": "down", "lora_up.weight": "up"}
_BELONGS_TO = (
    (("down_blocks.", "mid_block.", "up_blocks.", "conv_in", "conv_out", "time_embedding."), "unet"),
    (("transformer_blocks.", "single_transformer_blocks.", "context_embedder", "x_embedder"), "transformer"),
    (("text_model.", "encoder.layers."), "text_encoder"),
)
"""How layers begin whose file does not say which part they belong to, as PEFT writes them."""

_FOREIGN = (
    (re.compile(r"\.hada_"), "LoHa"),
    (re.compile(r"\.lokr_"), "LoKr"),
    (re.compile(r"\.(?:oft_|boft_)"), "OFT"),
    (re.compile(r"\.(?:diff|diff_b|set_weight)$"), "a full difference of weights"),
    (re.compile(r"\.(?:a1|a2|b1|b2)\.weight$"), "GLoRA"),
    (re.compile(r"\.(?:on_input|ia3_l)"), "IA3"),
    (re.compile(r"\.lora_mid\."), "LoRA of convolutions with a third factor (Tucker)"),
    (re.compile(r"\.(?:dora_scale|lora_magnitude_vector)"), "DoRA"),
)
"""Relatives of LoRA that the engine does not load. Of Stable Diffusion, diffusers 0.42 reads none of their names: what
is left over fails, or is left out without a word, as the magnitudes of DoRA in Kohya's layout are."""

_OTHER_FILES = (
    (("model.diffusion_model.", "first_stage_model."), "a whole model"),
    (("emb_params", "clip_l", "clip_g", "string_to_param"), "a textual inversion"),
    (("control_model.", "controlnet_cond_embedding."), "a ControlNet"),
)
_OLD_NAMES = (
    (re.compile(r"\.processor\.to_([qkv])$"), r".to_\1"),
    (re.compile(r"\.processor\.to_out$"), ".to_out.0"),
    (re.compile(r"\.self_attn\.to_([qkv])$"), r".self_attn.\1_proj"),
    (re.compile(r"\.self_attn\.to_out$"), ".self_attn.out_proj"),
)


def read_layers(header: Header) -> tuple[Layout, list[Layer]]:
    """Return in which layout an adapter is stored, and what it changes.

    Args:
        header: of the file, with the scalars that end with ``ALPHA``.

    Raises:
        NoAdapter: it is something else.
        UnsupportedAdapter: it is of a kind or layout that would not be loaded, or it contradicts itself.
    """
    names = header.tensors
    _refuse_foreign(names)
    layout = _layout_of(names)
    if layout == Layout.KOHYA:
        return layout, _kohya_layers(header)
    return layout, _dotted_layers(header, layout)


def _refuse_foreign(names: Iterable[str]) -> None:
    for name in names:
        for pattern, algorithm in _FOREIGN:
            if pattern.search(name):
                raise UnsupportedAdapter(
                    f"This is {algorithm}, which the engine does not load. Only LoRA is taken."
                )


def _layout_of(names: Iterable[str]) -> Layout:
    names = list(names)
    if names and all(name.startswith(tuple(_KOHYA_PARTS)) for name in names):
        return Layout.KOHYA
    if names and all(name.startswith(_PEFT_PREFIX) for name in names):
        return Layout.PEFT
    if names and all(name.startswith(_DOTTED_PREFIXES) for name in names) and _any_lora(names):
        return Layout.DIFFUSERS
    for beginnings, what in _OTHER_FILES:
        if any(name.startswith(beginnings) for name in names):
            raise NoAdapter(f"This is {what}, not a LoRA adapter.")
    if _any_lora(names):
        raise UnsupportedAdapter(
            "Its tensors are named in no layout that is loaded whole, or in several at once: Kohya's, that of "
            "diffusers and that of PEFT are known."
        )
    raise NoAdapter("There is no LoRA adapter in this file.")


def _any_lora(names: Iterable[str]) -> bool:
    return any("lora" in name for name in names)


def _kohya_layers(header: Header) -> list[Layer]:
    found: dict[tuple[str, str], _Tensors] = defaultdict(_Tensors)
    for name, tensor in header.tensors.items():
        match = _KOHYA.fullmatch(name)
        if match is None:
            raise _stray(name)
        prefix, layer, kind = match.groups()
        tensors = found[_KOHYA_PARTS[prefix], layer]
        if kind == "alpha":
            tensors.alpha = header.scalars.get(name, math.nan)
        else:
            _put(tensors, _KINDS[kind], tensor, name)
    return [_layer(part, name, tensors, tensors.alpha) for (part, name), tensors in found.items()]


def _dotted_layers(header: Header, layout: Layout) -> list[Layer]:
    found: dict[tuple[str, str], _Tensors] = defaultdict(_Tensors)
    for name, tensor in header.tensors.items():
        match = _DOTTED.fullmatch(name)
        if match is None:
            raise _stray(name)
        path, factor, direction = match.groups()
        part, path = _place(path.removeprefix(_PEFT_PREFIX) if layout == Layout.PEFT else path)
        _put(found[part, path], direction or _KINDS[factor], tensor, name)
    alphas = _alphas(header.metadata)
    return [
        _layer(part, name, tensors, _number(alphas.of(part, name))) for (part, name), tensors in found.items()
    ]


def _place(path: str) -> tuple[str, str]:
    """Return the part that a layer belongs to, and its path in there, in today's spelling."""
    part, dot, rest = path.partition(".")
    if part not in _PARTS or not dot:
        part, rest = next((name for beginnings, name in _BELONGS_TO if path.startswith(beginnings)), ""), path
    if not part:
        raise UnsupportedAdapter(
            f"It changes “{_shown(path)}”, which is in no part of a model that is known."
        )
    for pattern, replacement in _OLD_NAMES:
        rest = pattern.sub(replacement, rest)
    return part, rest


def _alphas(metadata: dict[str, str]) -> Alphas:
    if ADAPTER_METADATA not in metadata:
        return Alphas({})
    try:
        said = parse_finite_json(metadata[ADAPTER_METADATA])
    except ValueError as error:
        raise UnsupportedAdapter(f"Its {ADAPTER_METADATA} is no valid JSON.") from error
    if not isinstance(said, dict):
        raise UnsupportedAdapter(f"Its {ADAPTER_METADATA} is no object.")
    return Alphas(said)


def _number(alpha: Any) -> float | None:
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        return None
    try:
        return float(alpha)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _put(tensors: _Tensors, kind: str, tensor: Tensor, name: str) -> None:
    if getattr(tensors, kind) is not None:
        raise UnsupportedAdapter(f"It has “{_shown(name)}” in two spellings.")
    setattr(tensors, kind, tensor)


def _layer(part: str, name: str, tensors: _Tensors, alpha: float | None) -> Layer:
    """Check that the tensors of a layer belong together, and return it."""
    down, up = tensors.down, tensors.up
    if down is None or up is None:
        raise UnsupportedAdapter(f"Of the layer “{_shown(name)}” one of the two factors is missing.")
    if down.dtype not in FLOATS or up.dtype not in FLOATS:
        raise UnsupportedAdapter(f"The layer “{_shown(name)}” has no floating-point numbers.")
    is_matrix = len(down.shape) == len(up.shape) == 2
    is_convolution = len(down.shape) == len(up.shape) == 4 and up.shape[2:] == (1, 1)
    rank = down.shape[0] if down.shape else 0
    if not (is_matrix or is_convolution) or up.shape[1] != rank or 0 in (*down.shape, *up.shape):
        shapes = f"{list(down.shape)} and {list(up.shape)}"
        raise UnsupportedAdapter(
            f"The factors of the layer “{_shown(name)}” do not fit each other: {shapes}."
        )
    if alpha is not None and not math.isfinite(alpha):
        raise UnsupportedAdapter(f"The scale of the layer “{_shown(name)}” is no number.")
    return Layer(part, name, inputs=down.shape[1], outputs=up.shape[0], rank=rank, alpha=alpha)


def _stray(name: str) -> UnsupportedAdapter:
    return UnsupportedAdapter(f"It has a tensor “{_shown(name)}”, which is no part of a LoRA that is loaded.")


def _shown(name: str) -> str:
    """Return a stranger's name for something, short and without what is not seen."""
    text = json.dumps(name, ensure_ascii=True)[1:-1]
    return text if len(text) <= 80 else f"{text[:79]}…"
