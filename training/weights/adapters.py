"""What a LoRA adapter is for, read from the names, shapes and metadata of its file."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from training.weights.families import Family, family_of_width, family_said
from training.weights.header import Header, parse_finite_json
from training.weights.layouts import ALPHA, Layer, Layout, UnsupportedAdapter, read_layers

MOST_TRIGGER_WORDS = 20
LONGEST_TRIGGER_WORD = 100
MOST_IN_ALL_CAPTIONS = 5
"""More tags than these that stand in every caption say nothing about which of them is the trigger."""
LONGEST_NAME = 200
LONGEST_DESCRIPTION = 2000

SCALARS = ALPHA
"""What :func:`training.weights.read_header` is to read of the tensors as well, as ``scalars_ending``."""

_CROSS_ATTENTION = re.compile(r"attn2[._]to_[kv]$")
_DEEP_TRANSFORMER = re.compile(r"transformer_blocks[._](\d+)[._]")
_ORIGINAL_BLOCKS = ("input_blocks_", "middle_block_", "output_blocks_")
_DENOISERS = ("unet", "transformer")


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter is, as far as its file tells."""

    layout: Layout
    family: Family
    layers: tuple[Layer, ...]
    rank: int
    """The largest, where layers differ."""
    alpha: float | None
    """Of the first layer with the largest rank; None: not said, so that it is the rank."""
    targets: dict[str, int]
    """How many layers of each part of a pipeline it changes."""
    trigger_words: tuple[str, ...] = ()
    base_model_name: str = ""
    """What it was trained on, by its own account."""
    title: str = ""
    description: str = ""


def recognise_adapter(header: Header) -> AdapterFacts:
    """Return what the adapter in a file is.

    Args:
        header: as ``read_header(path, scalars_ending=SCALARS)`` returns it.

    Raises:
        NoAdapter: there is none in it.
        UnsupportedAdapter: the engine would not load it, or not all of it.
    """
    layout, layers = read_layers(header)
    family = _family(layers, header.metadata)
    if layout == Layout.KOHYA and family in {Family.SD3, Family.FLUX}:
        layers = _of_transformer(layers, family)
    largest = max(layers, key=lambda layer: layer.rank)
    return AdapterFacts(
        layout=layout,
        family=family,
        layers=tuple(layers),
        rank=largest.rank,
        alpha=largest.alpha,
        targets=dict(sorted(Counter(layer.part for layer in layers).items())),
        trigger_words=_trigger_words(header.metadata),
        base_model_name=_base_model_name(header.metadata),
        title=_line(header.metadata.get("modelspec.title") or header.metadata.get("ss_output_name", "")),
        description=_line(header.metadata.get("modelspec.description", ""), LONGEST_DESCRIPTION),
    )


def context_width(layers: tuple[Layer, ...] | list[Layer]) -> int | None:
    """Return how wide the context is that the cross-attention of a U-Net takes in; None where it is not changed.

    Raises:
        UnsupportedAdapter: layers disagree.
    """
    widths = {
        layer.inputs for layer in layers if layer.part == "unet" and _CROSS_ATTENTION.search(layer.name)
    }
    if len(widths) > 1:
        raise UnsupportedAdapter("It mixes layers of several families of models.")
    return next(iter(widths), None)


def _family(layers: list[Layer], metadata: dict[str, str]) -> Family:
    """Tell the family by the shapes, which cannot err, and where they say nothing by what the file says of itself."""
    of_denoiser = [layer for layer in layers if layer.part in _DENOISERS]
    if not of_denoiser:
        raise UnsupportedAdapter(
            "It changes text encoders only. Adapters that leave the network that makes the picture alone are not taken."
        )
    parts = {layer.part for layer in of_denoiser}
    if parts == set(_DENOISERS):
        raise UnsupportedAdapter("It mixes layers of several families of models.")
    if parts == {"transformer"} or any("double_blocks" in layer.name for layer in of_denoiser):
        return _transformer_family(of_denoiser)
    if any(layer.name.startswith("joint_blocks") for layer in of_denoiser):
        return Family.SD3
    width = context_width(layers)
    if width is not None:
        return family_of_width(width)
    if any(layer.part == "text_encoder_2" for layer in layers) or any(map(_is_of_sdxl, of_denoiser)):
        return Family.SDXL
    said = family_said(metadata)
    if said is None:
        raise UnsupportedAdapter(
            "Neither its shapes nor its metadata tell which family of models it belongs to: it changes no cross-attention."
        )
    return said


def _is_of_sdxl(layer: Layer) -> bool:
    """Tell whether a layer of a U-Net stands where only Stable Diffusion XL has one."""
    depth = _DEEP_TRANSFORMER.search(layer.name)
    return layer.name.startswith(_ORIGINAL_BLOCKS) or (depth is not None and int(depth[1]) > 0)


def _transformer_family(layers: list[Layer]) -> Family:
    if any(re.match(r"single_(?:transformer_)?blocks", layer.name) for layer in layers):
        return Family.FLUX
    widths = {layer.inputs for layer in layers if re.search(r"attn[._](?:to_q|add_q_proj)$", layer.name)}
    if widths == {3072} or any("double_blocks" in layer.name for layer in layers):
        return Family.FLUX
    if widths and widths <= {1536, 2432}:  # medium and large
        return Family.SD3
    return Family.OTHER


def _of_transformer(layers: list[Layer], family: Family) -> list[Layer]:
    """Kohya calls the transformer of later families a U-Net, too."""
    if family == Family.SD3:
        raise UnsupportedAdapter(
            "This is an adapter for Stable Diffusion 3 in Kohya's layout, which diffusers does not read. "
            "Save it in the layout of diffusers."
        )
    return [
        Layer("transformer", layer.name, layer.inputs, layer.outputs, layer.rank, layer.alpha)
        if layer.part == "unet"
        else layer
        for layer in layers
    ]


def _trigger_words(metadata: dict[str, str]) -> tuple[str, ...]:
    """Return the words that summon what an adapter has learned, by its own account."""
    phrase = metadata.get("imagehub.trigger_word") or metadata.get("modelspec.trigger_phrase", "")
    words = phrase.split(",") if phrase else _words_of_all_captions(metadata.get("ss_tag_frequency", ""))
    cleaned = (_line(word, LONGEST_TRIGGER_WORD) for word in words)
    return tuple(dict.fromkeys(word for word in cleaned if word))[:MOST_TRIGGER_WORDS]


def _words_of_all_captions(frequencies: str) -> list[str]:
    """Return the tags that stand in as many captions of a folder as any: the trigger is in all of them."""
    try:
        folders = parse_finite_json(frequencies)
    except ValueError:
        return []
    words: list[str] = []
    for tags in folders.values() if isinstance(folders, dict) else ():
        counts = (
            {tag: count for tag, count in tags.items() if type(count) is int}
            if isinstance(tags, dict)
            else {}
        )
        most = max(counts.values(), default=0)
        in_all = [tag for tag, count in counts.items() if count == most]
        words += in_all if len(in_all) <= MOST_IN_ALL_CAPTIONS else []
    return words


def _base_model_name(metadata: dict[str, str]) -> str:
    """Return what it was trained on: a name, never the folder of somebody's machine that the trainer wrote down."""
    for name in ("ss_sd_model_name", "ss_base_model_version"):
        said = _line(re.split(r"[/\\]", metadata.get(name, ""))[-1])
        if said and said != "None":
            return said.removesuffix(".safetensors").removesuffix(".ckpt")
    return ""


def _line(text: str, longest: int = LONGEST_NAME) -> str:
    """Return the first so many characters of a stranger's text, on one line, without what is not seen."""
    visible = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text[: 4 * longest])
    return " ".join(visible.split())[:longest].strip()
