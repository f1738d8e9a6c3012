"""A picture as lists show it: a small version, in the shape that it will have."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from albums import links
from albums.models import Image, Visibility
from imagehub.config import get_config

TINY_PIXELS = 256
"""Pictures up to this side are shown as they are: a thumbnail would only blur them."""

RATIO_STEP = 1.06
NARROWEST, WIDEST = -16, 20
"""Shapes are rounded to powers of a step, because a style sheet has a class for each; 1.06 crops 3 % at most."""


@dataclass(frozen=True)
class Tile:
    """What the template of a tile needs to know."""

    image: Image
    url: str
    title: str
    src: str
    srcset: str
    shape: int
    is_tiny: bool
    is_flagged: bool
    is_private: bool


def tiles_of(images: Iterable[Image], *, query: str = "") -> list[Tile]:
    """Return the tiles of images; ``query`` is what their links remember of where they were found."""
    sizes = thumbnail_sizes()
    return [_tile(image, sizes, query) for image in images]


def thumbnail_sizes() -> list[int]:
    return sorted(get_config().storage.thumbnail_sizes)


def shape_of(width: int, height: int) -> int:
    """Return the number of the class that gives a tile the shape of its picture."""
    return max(NARROWEST, min(WIDEST, round(math.log(width / height, RATIO_STEP))))


def srcset_of(image: Image, sizes: Iterable[int]) -> str:
    """Return the thumbnails of an image with their widths. None is larger than the picture."""
    by_width: dict[int, int] = {}
    for size in sizes:
        by_width.setdefault(_width(image, size), size)
    return ", ".join(f"{links.thumbnail_url(image.pk, size)} {width}w" for width, size in by_width.items())


def _width(image: Image, size: int) -> int:
    return min(image.width, max(1, round(image.width * size / max(image.width, image.height))))


def _tile(image: Image, sizes: list[int], query: str) -> Tile:
    is_tiny = max(image.width, image.height) <= TINY_PIXELS
    return Tile(
        image=image,
        url=links.page_url(image.pk) + query,
        title=image.prompt or image.name,
        src=links.file_url(image.pk) if is_tiny else links.thumbnail_url(image.pk),
        srcset="" if is_tiny else srcset_of(image, sizes),
        shape=shape_of(image.width, image.height),
        is_tiny=is_tiny,
        is_flagged=image.nsfw == Image.Nsfw.FLAGGED,
        is_private=image.visibility == Visibility.PRIVATE,
    )
