"""Thumbnails: WebP in a few fixed sizes, and never larger than the picture.

They are rendered soon after a picture is stored (:mod:`albums.tasks`), or when one is asked for before that.

They are named by the content of the picture, so images with equal bytes share them.
"""

from collections.abc import Sequence
from pathlib import Path

import PIL.ImageOps
from django.core.cache import cache

from albums.decoding.rendering import render_thumbnail
from albums.models import Image
from albums.pictures import UnreadablePicture, open_picture
from albums.services.images import local_image
from imagehub import storage
from imagehub.config import get_config
from imagehub.errors import Invalid

DAMAGED_FOR_SECONDS = 600


def thumbnail_of(image: Image, size: int) -> str:
    """Return the name of a stored thumbnail, rendering it where it is missing.

    Raises:
        ImageFileMissing: the picture itself is not in the store.
        Invalid: no thumbnails of this size exist.
        StillBusy: somebody else has been rendering it for too long.
        StorageFull: the disk is full.
        UnreadablePicture: the picture is damaged.
    """
    sizes = get_config().storage.thumbnail_sizes
    if size not in sizes:
        raise Invalid(
            f"Thumbnails have the sizes {', '.join(map(str, sizes))}.", pointer="/size", code="unknown_size"
        )
    name = thumbnail_name(image.sha256, size)
    if not storage.exists(name):
        render_missing(image, [size])
    return name


def render_missing(image: Image, sizes: Sequence[int]) -> None:
    """Render those thumbnails of a picture that are not stored, each once, however many ask for it at the same time.

    A picture that turns out to be damaged is left alone for a while: to find it damaged costs as much as a thumbnail.

    Raises:
        ImageFileMissing, StillBusy, StorageFull, UnreadablePicture: see :func:`thumbnail_of`.
    """
    damaged = f"damaged-picture:{image.sha256}"
    with storage.alone(image.sha256):
        missing = [size for size in sizes if not storage.exists(thumbnail_name(image.sha256, size))]
        if not missing:
            return
        if cache.get(damaged):
            raise UnreadablePicture("The picture is damaged.")
        try:
            with local_image(image) as path:
                for size in missing:
                    storage.write_file(thumbnail_name(image.sha256, size), render(path, size))
        except UnreadablePicture:
            cache.set(damaged, 1, DAMAGED_FOR_SECONDS)
            raise


def default_size() -> int:
    """Return the size of a thumbnail when nobody asks for one: the middle one."""
    sizes = sorted(get_config().storage.thumbnail_sizes)
    return sizes[len(sizes) // 2]


def smallest_size() -> int:
    """Return the size of the smallest thumbnail."""
    return min(get_config().storage.thumbnail_sizes)


def thumbnail_name(sha256: str, size: int) -> str:
    """Return the name under which a thumbnail is stored."""
    return f"{storage.THUMBNAILS}/{size}/{sha256[:2]}/{sha256}.webp"


def render(path: Path, size: int) -> bytes:
    """Return a picture as WebP that fits into a square.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadablePicture: it is no picture, or damaged.
    """
    with open_picture(path) as picture:
        picture.draft(None, (size, size))  # a JPEG can be decoded at an eighth of its size
        return render_thumbnail(PIL.ImageOps.exif_transpose(picture), size)
