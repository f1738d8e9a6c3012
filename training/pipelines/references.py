"""Which weights a request means. Needs no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from training.pipelines import fields

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

LARGEST_WEIGHT = 2.0
"""The same as ``training.models.LARGEST_ADAPTER_WEIGHT``, which no child program can import."""

LARGEST_STACK = 8


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
            raise fields.wrong("model", "an object")
        kind = value.get("kind")
        if kind not in list(ModelKind):
            raise fields.wrong("model.kind", "folder, file or hub")
        source = fields.text(value, "source")
        if not source or "\0" in source:
            raise fields.wrong("model.source", "a path or a hub id")
        if kind == ModelKind.HUB and not HUB_ID.fullmatch(source):
            raise fields.wrong("model.source", "a hub id such as organisation/name")
        allow_download = value.get("allow_download", False)
        if not isinstance(allow_download, bool):
            raise fields.wrong("model.allow_download", "true or false")
        return cls(source=source, kind=ModelKind(kind), allow_download=allow_download)


@dataclass(frozen=True)
class AdapterReference:
    """One adapter of a stack: a .safetensors file, and how strongly it acts.

    ``name`` is what its owner calls it, so it may be shown; the path may not.
    """

    id: str
    name: str
    source: Path
    weight: float

    @classmethod
    def parse_stack(cls, value: object) -> tuple[Self, ...]:
        """Read the ``adapters`` of a request. Those of weight 0 are left out, for they change nothing.

        Raises:
            RequestFailed: it is no list of up to eight adapters, each of them once (``bad_request``).
        """
        if not isinstance(value, list) or len(value) > LARGEST_STACK:
            raise fields.wrong("adapters", f"a list of at most {LARGEST_STACK}")
        stack = tuple(cls._parse(adapter) for adapter in value)
        if len({adapter.id for adapter in stack}) < len(stack):
            raise fields.wrong("adapters", "a list that names each adapter once")
        return tuple(adapter for adapter in stack if adapter.weight)

    @classmethod
    def _parse(cls, value: Any) -> Self:
        if not isinstance(value, Mapping):
            raise fields.wrong("adapters", "a list of objects")
        source = fields.absolute_path(value, "source")
        if source.suffix.lower() != ".safetensors":
            raise fields.wrong("source", "a .safetensors file, because others can hold code")
        return cls(
            id=fields.text(value, "id"),
            name=fields.text(value, "name", default=fields.text(value, "id")),
            source=source,
            weight=fields.number(value, "weight", -LARGEST_WEIGHT, LARGEST_WEIGHT),
        )
