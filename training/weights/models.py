"""What a base model is: a folder in the layout of diffusers, or one file with everything in it. No weight is loaded."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.weights.families import DEFAULT_SIDES, PIPELINES, Family, family_of_width
from training.weights.header import Header, WeightsRefused, parse_finite_json, read_header

INDEX = "model_index.json"
MAX_CONFIG_BYTES = 1024 * 1024
MAX_FILES = 10_000
VAE_FACTOR = 8
"""By how much the VAE of every family shrinks a picture, where its configuration does not say."""
LARGEST_SIDE = 8192

PICKLED = frozenset({".ckpt", ".pt", ".pth", ".bin"})
"""Endings of files that are unpickled when they are loaded, which runs whatever code is in them."""

COMPONENTS_WITHOUT_WEIGHTS = ("scheduler", "tokenizer", "feature_extractor", "image_processor")
LEFT_OUT = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
"""Components that the engine does not load, or that may be missing."""

_TRANSFORMERS = {"StableDiffusion3": Family.SD3, "Flux": Family.FLUX}
_OTHER_PURPOSE = re.compile(r"Inpaint|Img2Img|Upscale|Video|ControlNet|InstructPix2Pix|Audio|Refiner")
_CROSS_ATTENTION = re.compile(r"(?:^|\.)attn2\.to_k\.weight$")
_UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_LATENT_CHANNELS = 4


@dataclass(frozen=True)
class ModelFacts:
    """What a base model is, as far as a look can tell."""

    family: Family | None = None
    """None: it could not be told."""
    pipeline: str = ""
    """The class of diffusers that loads it."""
    side: int | None = None
    """Pixels of the square that it was trained on."""
    size_bytes: int = 0
    """Of all its files."""
    problem: str = ""
    """Why it cannot be used."""


def recognise_model(path: Path) -> ModelFacts:
    """Return what the model at a place is; what is wrong with it is part of the answer.

    Raises:
        FileNotFoundError: there is nothing.
    """
    path = path.resolve(strict=True)
    return _folder(path) if path.is_dir() else _file(path)


def _folder(path: Path) -> ModelFacts:
    size = _size_of(path)
    if not (path / INDEX).is_file():
        return ModelFacts(
            size_bytes=size, problem=f"The folder has no {INDEX}: it is not in the layout of diffusers."
        )
    index = read_config(path / INDEX)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str) or not pipeline.isidentifier():
        return ModelFacts(size_bytes=size, problem=f"Its {INDEX} does not name a pipeline.")
    return replace(
        _configured(path, pipeline),
        size_bytes=size,
        problem=_purpose_problem(pipeline) or _components_problem(path, index) or _channels_problem(path),
    )


def _configured(path: Path, pipeline: str) -> ModelFacts:
    """Return what the configurations of a folder say."""
    family = next((family for name, family in _TRANSFORMERS.items() if pipeline.startswith(name)), None)
    denoiser = read_config(path / ("transformer" if family else "unet") / "config.json")
    if family is None:
        width = denoiser.get("cross_attention_dim")
        family = family_of_width(width) if isinstance(width, int) else Family.OTHER
    return ModelFacts(family, pipeline, _side(path, denoiser, family))


def _side(path: Path, denoiser: dict[str, Any], family: Family) -> int | None:
    sample = denoiser.get("sample_size")
    if type(sample) is not int or family == Family.FLUX:  # its configuration does not say
        return DEFAULT_SIDES.get(family)
    blocks = read_config(path / "vae" / "config.json").get("block_out_channels")
    factor = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and 0 < len(blocks) < 8 else VAE_FACTOR
    return sample * factor if 0 < sample * factor <= LARGEST_SIDE else None


def _purpose_problem(pipeline: str) -> str:
    return (
        f"A {pipeline[:100]} does not make pictures of text alone." if _OTHER_PURPOSE.search(pipeline) else ""
    )


def _channels_problem(path: Path) -> str:
    channels = read_config(path / "unet" / "config.json").get("in_channels", _LATENT_CHANNELS)
    return (
        ""
        if channels == _LATENT_CHANNELS
        else "It is made to change pictures (inpainting), not to make them of text."
    )


def _components_problem(path: Path, index: dict[str, Any]) -> str:
    """Say which part of a pipeline is missing, or could hold code."""
    for name, value in index.items():
        if name.startswith("_") or name in LEFT_OUT or not isinstance(value, list) or None in value:
            continue
        if not name.isidentifier():
            return f"Its {INDEX} names a part in no known way."
        folder = path / name
        if not folder.is_dir():
            return f"Its {name[:50]} is missing."
        if not name.startswith(COMPONENTS_WITHOUT_WEIGHTS) and (problem := _weights_problem(folder)):
            return problem
    return ""


def _weights_problem(folder: Path) -> str:
    files = [file for file in folder.iterdir() if file.is_file()]
    if not any(file.suffix == ".safetensors" for file in files):
        if any(file.suffix in PICKLED for file in files):
            return f"The weights of its {folder.name} could hold code: only .safetensors files are loaded."
        return f"The weights of its {folder.name} are missing."
    for file in files:
        if file.name.endswith(".safetensors.index.json"):
            parts = read_config(file).get("weight_map")
            names = set(parts.values()) if isinstance(parts, dict) else set()
            if any(not isinstance(part, str) or not (folder / Path(part).name).is_file() for part in names):
                return f"Some of the weights of its {folder.name} are missing."
    return ""


def _file(path: Path) -> ModelFacts:
    size = path.stat().st_size
    if path.suffix.lower() in PICKLED:
        return ModelFacts(
            size_bytes=size, problem="The file could hold code: only .safetensors files are loaded."
        )
    if path.suffix.lower() != ".safetensors":
        return ModelFacts(size_bytes=size, problem="Only .safetensors files are loaded.")
    try:
        header = read_header(path)
    except WeightsRefused as refusal:
        return ModelFacts(size_bytes=size, problem=str(refusal))
    facts = _of_tensors(header)
    beside = path.with_suffix("")  # where the engine looks for the configuration first
    if not facts.problem and (beside / INDEX).is_file():
        index = read_config(beside / INDEX)
        pipeline = index.get("_class_name")
        if isinstance(pipeline, str) and pipeline.isidentifier():
            configured = _configured(beside, pipeline)
            facts = replace(
                facts, pipeline=pipeline, side=configured.side, problem=_purpose_problem(pipeline)
            )
    return replace(facts, size_bytes=size)


def _of_tensors(header: Header) -> ModelFacts:
    """Return what the names and shapes in a single file tell."""
    names = header.tensors
    family = family_of_tensors(header)
    if family is None:
        is_adapter = any("lora" in name for name in names)
        what = (
            "This is an adapter, not a base model."
            if is_adapter
            else "This is no model of a kind that is known."
        )
        return ModelFacts(problem=what)
    facts = ModelFacts(family, PIPELINES.get(family, PIPELINES[Family.SD1]), DEFAULT_SIDES.get(family))
    entrance = names.get(_UNET_INPUT)
    if entrance is not None and entrance.shape[1:2] != (_LATENT_CHANNELS,):
        return replace(facts, problem="It is made to change pictures (inpainting), not to make them of text.")
    if family in {Family.SD3, Family.FLUX}:
        return facts  # their text encoders are commonly kept apart
    for beginnings, what in (
        (("cond_stage_model.", "conditioner."), "text encoder"),
        (("first_stage_model.",), "VAE"),
    ):
        if not any(name.startswith(beginnings) for name in names):
            return replace(facts, problem=f"The file has no {what}: it is only a part of a model.")
    return facts


def family_of_tensors(header: Header) -> Family | None:
    """Return the family of a whole model in the original names of its tensors; None: it is no such model."""
    names = header.tensors
    if any(".double_blocks." in f".{name}" for name in names):
        return Family.FLUX
    if any(".joint_blocks." in f".{name}" for name in names):
        return Family.SD3
    width = context_width_of_tensors(header)
    return None if width is None else family_of_width(width)


def context_width_of_tensors(header: Header) -> int | None:
    """Return how wide the context is that the U-Net of a whole model takes in; None: it has none in its original names."""
    return next(
        (
            tensor.shape[1]
            for name, tensor in header.tensors.items()
            if name.startswith("model.diffusion_model.")
            and _CROSS_ATTENTION.search(name)
            and len(tensor.shape) == 2
        ),
        None,
    )


def read_config(path: Path) -> dict[str, Any]:
    """Return a configuration; what is missing, broken or beyond its limit says nothing."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
        value = parse_finite_json(raw.decode()) if len(raw) <= MAX_CONFIG_BYTES else None
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _size_of(path: Path) -> int:
    """Return how many bytes the files of a folder have, as far as one looks."""
    total = 0
    for count, file in enumerate(path.rglob("*")):
        if count == MAX_FILES:
            break
        if file.is_file():
            total += file.stat().st_size
    return total
