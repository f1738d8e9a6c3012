"""What the structure of a picture file says about the picture, before anything is decoded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from albums.decoding import jpeg, png, webp
from albums.decoding.refusals import ImpossiblePicture

if TYPE_CHECKING:
    from imagehub.config_schema import UploadsConfig

_READERS = {"png": png.outline, "jpeg": jpeg.outline, "webp": webp.outline}


@dataclass(frozen=True)
class Outline:
    """Sides are pixels. A still picture has one frame."""

    width: int
    height: int
    frames: int


def read_outline(file: BinaryIO, format: str) -> Outline:  # noqa: A002 - the word of the domain
    """Read the outline of a file. Neither memory nor time grow with what the file claims.

    Raises:
        ImpossiblePicture: the structure is damaged.
    """
    return Outline(*_READERS[format](file))


def check_outline(outline: Outline, limits: "UploadsConfig") -> None:
    """Refuse what would take too much to decode, or to look at.

    Raises:
        ImpossiblePicture: its sides, pixels, ratio or frames are beyond the limits.
    """
    sides = outline.width, outline.height
    if min(sides) < 1:
        raise ImpossiblePicture("The picture has no pixels.")
    if max(sides) > min(sides) * limits.max_ratio:
        raise ImpossiblePicture(
            f"One side of the picture is more than {limits.max_ratio} times the other.",
            code="bad_aspect_ratio",
        )
    pixels = outline.width * outline.height
    if pixels > limits.max_pixels:
        raise ImpossiblePicture(
            f"The picture has more than {limits.max_pixels:,} pixels.", code="too_many_pixels"
        )
    if max(sides) > limits.max_side:
        raise ImpossiblePicture(
            f"A side of the picture is longer than {limits.max_side} pixels.", code="too_wide"
        )
    if outline.frames > limits.max_frames:
        raise ImpossiblePicture(
            f"The animation has more than {limits.max_frames} frames.", code="too_many_frames"
        )
    if outline.frames * pixels > limits.max_total_pixels:
        raise ImpossiblePicture(
            f"The frames of the animation have more than {limits.max_total_pixels:,} pixels together.",
            code="too_many_pixels",
        )
