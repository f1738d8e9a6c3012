"""What a caller may ask of the engine, checked before any model is touched."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from training.pipelines import fields
from training.pipelines.references import AdapterReference, ModelReference
from training.pipelines.schedulers import MAX_STEPS

MAX_SEED = 2**63 - 1
MAX_SIDE_PX = 8192
MAX_GUIDANCE_SCALE = 100.0
PIXEL_GRID = 8
"""Width and height are multiples of this: one latent cell of the usual models."""


@dataclass(frozen=True)
class GenerateRequest:
    """One picture to make. Sizes are in pixels; paths are absolute, and ``output`` is the PNG to write.

    With ``init_image`` it starts from that picture, and ``strength`` says how much of it is made anew:
    0 keeps it, 1 starts from noise. ``adapters`` are those of a weight other than 0, in their order.
    """

    id: str
    model: ModelReference
    adapters: tuple[AdapterReference, ...]
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    width: int
    height: int
    guidance_scale: float
    scheduler: str | None
    init_image: Path | None
    strength: float | None
    previews: bool
    """Whether to show it in the making from the start; a message of its own may say otherwise later."""
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
            raise fields.wrong("scheduler", "a name or null")
        has_init_image = message.get("init_image") is not None
        if not has_init_image and message.get("strength") is not None:
            raise fields.wrong("strength", "left out without an “init_image”")
        return cls(
            id=fields.text(message, "id"),
            model=ModelReference.parse(message.get("model")),
            adapters=AdapterReference.parse_stack(message.get("adapters", [])),
            prompt=fields.text(message, "prompt"),
            negative_prompt=fields.text(message, "negative_prompt", default=""),
            seed=fields.whole(message, "seed", 0, MAX_SEED),
            steps=fields.whole(message, "steps", 1, MAX_STEPS),
            width=_side(message, "width"),
            height=_side(message, "height"),
            guidance_scale=fields.number(message, "guidance_scale", 0.0, MAX_GUIDANCE_SCALE),
            scheduler=scheduler,
            init_image=fields.absolute_path(message, "init_image") if has_init_image else None,
            strength=fields.number(message, "strength", 0.0, 1.0) if has_init_image else None,
            previews=fields.flag(message, "previews"),
            output=fields.absolute_path(message, "output"),
            text=_chunks(message.get("text", {})),
        )


def _side(message: Mapping[str, Any], field: str) -> int:
    side = fields.whole(message, field, PIXEL_GRID, MAX_SIDE_PX)
    if side % PIXEL_GRID:
        raise fields.wrong(field, f"a multiple of {PIXEL_GRID}")
    return side


def _chunks(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise fields.wrong("text", "an object of texts")
    for keyword in value:
        # The PNG specification's rule for keywords; Pillow would write a file nobody can read.
        if not (keyword.isascii() and keyword.isprintable() and 1 <= len(keyword) <= 79):
            raise fields.wrong("text", "an object whose names are 1 to 79 plain characters")
    return {keyword: fields.text(value, keyword) for keyword in value}
