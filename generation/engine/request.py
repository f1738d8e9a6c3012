"""What a caller may ask of the engine, checked before any model is touched."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from generation.engine.failures import FailureCode, RequestFailed

MAX_SEED = 2**63 - 1
MAX_SIDE_PX = 8192
MAX_STEPS = 1000
MAX_GUIDANCE_SCALE = 100.0
PIXEL_GRID = 8
"""Width and height are multiples of this: one latent cell of the usual models."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class ModelKind(StrEnum):
    FOLDER = "folder"
    FILE = "file"
    HUB = "hub"


@dataclass(frozen=True)
class ModelReference:
    """Where the weights are: a folder in diffusers layout, one .safetensors file, or a hub id."""

    source: str
    kind: ModelKind
    allow_download: bool = False

    @property
    def name(self) -> str:
        """The model's name without its place on this machine, fit to be shown to anybody."""
        return self.source if self.kind == ModelKind.HUB else Path(self.source).name

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read the ``model`` object of a request.

        Raises:
            RequestFailed: it is not a model reference (``bad_request``).
        """
        if not isinstance(value, Mapping):
            raise _wrong("model", "an object")
        kind = value.get("kind")
        if kind not in list(ModelKind):
            raise _wrong("model.kind", "folder, file or hub")
        source = _text(value, "source")
        if not source or "\0" in source:
            raise _wrong("model.source", "a path or a hub id")
        if kind == ModelKind.HUB and not HUB_ID.fullmatch(source):
            raise _wrong("model.source", "a hub id such as organisation/name")
        allow_download = value.get("allow_download", False)
        if not isinstance(allow_download, bool):
            raise _wrong("model.allow_download", "true or false")
        return cls(source=source, kind=ModelKind(kind), allow_download=allow_download)


@dataclass(frozen=True)
class GenerateRequest:
    """One picture to make. Sizes are in pixels; ``output`` is the absolute path of the PNG to write."""

    id: str
    model: ModelReference
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    width: int
    height: int
    guidance_scale: float
    scheduler: str | None
    output: Path
    text: Mapping[str, str]

    @classmethod
    def parse(cls, message: Mapping[str, Any]) -> Self:
        """Read a ``generate`` request.

        Raises:
            RequestFailed: a field is missing or wrong (``bad_request``).
        """
        scheduler = message.get("scheduler")
        if scheduler is not None and not isinstance(scheduler, str):
            raise _wrong("scheduler", "a name or null")
        output = _text(message, "output")
        if "\0" in output or not Path(output).is_absolute() or not Path(output).name:
            raise _wrong("output", "an absolute path")
        return cls(
            id=_text(message, "id"),
            model=ModelReference.parse(message.get("model")),
            prompt=_text(message, "prompt"),
            negative_prompt=_text(message, "negative_prompt", default=""),
            seed=_whole(message, "seed", 0, MAX_SEED),
            steps=_whole(message, "steps", 1, MAX_STEPS),
            width=_side(message, "width"),
            height=_side(message, "height"),
            guidance_scale=_number(message, "guidance_scale", 0.0, MAX_GUIDANCE_SCALE),
            scheduler=scheduler,
            output=Path(output),
            text=_chunks(message.get("text", {})),
        )


def _wrong(field: str, expected: str) -> RequestFailed:
    return RequestFailed(FailureCode.BAD_REQUEST, f"“{field}” must be {expected}.")


def _text(message: Mapping[str, Any], field: str, default: str | None = None) -> str:
    value = message.get(field, default)
    if not isinstance(value, str):
        raise _wrong(field, "a text")
    try:  # JSON can spell half a surrogate pair, which neither a tokenizer nor a file can hold
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(field, "valid Unicode") from None
    return value


def _whole(message: Mapping[str, Any], field: str, low: int, high: int) -> int:
    value = message.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(field, f"a whole number from {low} to {high}")
    return value


def _side(message: Mapping[str, Any], field: str) -> int:
    side = _whole(message, field, PIXEL_GRID, MAX_SIDE_PX)
    if side % PIXEL_GRID:
        raise _wrong(field, f"a multiple of {PIXEL_GRID}")
    return side


def _number(message: Mapping[str, Any], field: str, low: float, high: float) -> float:
    value: Any = message.get(field)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # NaN lies in no range
        raise _wrong(field, f"a number from {low:g} to {high:g}")
    return float(value)


def _chunks(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise _wrong("text", "an object of texts")
    for keyword in value:
        # The PNG specification's rule for keywords; Pillow would write a file nobody can read.
        if not (keyword.isascii() and keyword.isprintable() and 1 <= len(keyword) <= 79):
            raise _wrong("text", "an object whose names are 1 to 79 plain characters")
    return {keyword: _text(value, keyword) for keyword in value}
