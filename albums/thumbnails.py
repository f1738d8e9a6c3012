"""Thumbnails: WebP in a few fixed sizes, rendered when first asked for, and never larger than the picture.

They are named by the content of the picture, so images with equal bytes share them.
"""

from io import BytesIO
from pathlib import Path

import PIL.Image
import PIL.ImageOps

from albums.models import Image
from albums.pictures import open_picture
from albums.services import image_path
from imagehub import storage
from imagehub.config import get_config
from imagehub.errors import Invalid

QUALITY, METHOD = 80, 4
MODES = {"RGB", "RGBA"}  # what WebP can hold


def thumbnail_path(image: Image, size: int) -> Path:
    """Return the file of a thumbnail, rendering it where it is missing.

    Raises:
        ImageFileMissing: the picture itself is not in the store.
        Invalid: no thumbnails of this size exist.
        StorageFull: the disk is full.
        UnreadablePicture: the picture is damaged.
    """
    sizes = get_config().storage.thumbnail_sizes
    if size not in sizes:
        raise Invalid(
            f"Thumbnails have the sizes {', '.join(map(str, sizes))}.", pointer="/size", code="unknown_size"
        )
    name = thumbnail_name(image.sha256, size)
    path = storage.path_of(name)
    if not path.is_file():
        path = storage.write_file(name, render(image_path(image), size))
    return path


def default_size() -> int:
    """Return the size of a thumbnail when nobody asks for one: the middle one."""
    sizes = sorted(get_config().storage.thumbnail_sizes)
    return sizes[len(sizes) // 2]


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
        upright = PIL.ImageOps.exif_transpose(picture)
        if upright.mode == "I;16":  # Pillow would cut off what is brighter than 255
            upright = upright.point(lambda value: value * (1 / 256)).convert("L")
        if upright.mode not in MODES:
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        upright.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
        target = BytesIO()
        upright.save(target, "WEBP", quality=QUALITY, method=METHOD)
    return target.getvalue()
