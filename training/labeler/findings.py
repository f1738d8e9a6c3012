"""What a labeler says of a picture, and what labelers have in common. Needs neither Django nor torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import PIL.Image

from training.datasets.pixels import on_white

Task = Literal["caption", "tag", "nsfw"]

TASKS: tuple[Task, ...] = ("caption", "tag", "nsfw")
FORMATS = ("PNG", "JPEG", "WEBP")
STARTER = "starter"
NUDENET = "nudenet"


@dataclass(frozen=True)
class Said:
    """A caption or a tag, and how sure the model is of it, from 0 to 1, where it tells."""

    text: str
    confidence: float | None = None


@dataclass(frozen=True)
class Finding:
    """What was found in one picture: words for captions and tags, or a score."""

    said: tuple[Said, ...] = ()
    unfit: float | None = None
    """How unfit for everybody it is, from 0 to 1."""

    def __post_init__(self) -> None:
        numbers = [self.unfit, *(one.confidence for one in self.said)]
        if any(number is not None and not (math.isfinite(number) and 0 <= number <= 1) for number in numbers):
            raise NothingFound("The model gave a number that means nothing.")


class NothingFound(Exception):
    """Of this picture nothing can be said. The text is for people, and names no path."""


class Labeler(Protocol):
    """A model that looks at pictures."""

    name: str
    """What it is called as the author of what it says."""

    def label(self, pictures: Sequence[PIL.Image.Image]) -> list[Finding | NothingFound]:
        """Say something of each picture, or that nothing can be said."""
        ...


def open_picture(path: Path) -> PIL.Image.Image:
    """Return a picture as a model is shown it: in RGB, the first of several. What is stored is upright already.

    Raises:
        NothingFound: the file is no picture, or is damaged.
    """
    try:
        with PIL.Image.open(path, formats=FORMATS) as picture:
            return on_white(picture)
    except (
        Exception
    ) as error:  # what damaged files make of the decoders is no short list: struct, zlib, overflows
        raise NothingFound("The picture cannot be read.") from error
