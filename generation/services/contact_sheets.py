"""Contact sheets: the pictures of a set run side by side, with their names."""

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import PIL.Image
from django.core.cache import cache
from PIL import ImageDraw, ImageFont

from albums import thumbnails
from albums.models import Image
from albums.pictures import UnreadablePicture
from albums.services import ImageFileMissing
from generation.models import GenerationJob, SetRun
from generation.services.set_runs import images_of, items_of
from imagehub import storage
from imagehub.errors import Invalid

PICTURES = 120
"""So many stand on one sheet."""
COLUMNS = 10
TILE, GAP, LINE = 128, 8, 18
"""Pixels: a side of a picture, what is between two of them, and the line with its name."""
PAPER, INK, EMPTY = "#ffffff", "#222222", "#dddddd"
FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf")
"""Fonts of the system that know more than English, those that know most first. Pillow's own has not even accents."""
LETTERS = 13
"""Pixels: the size of the letters."""
KEPT_SECONDS = 3600
FORMATS = {"png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True)
class ContactSheet:
    """One sheet as a file."""

    content: bytes
    content_type: str
    etag: str
    page: int
    pages: int


def contact_sheet(run: SetRun, *, page: int = 1, file_format: str = "png") -> ContactSheet:
    """Return one sheet of a set run, at most 120 pictures in the order of the rows. What is not made yet is a grey square.

    Drawn from thumbnails, by one thread at a time, and kept for an hour: the same pictures are drawn once.

    Args:
        run: the set run.
        page: which sheet, from 1.
        file_format: ``png`` or ``webp``.

    Raises:
        Invalid: there is no such sheet.
        StillBusy: somebody else has been drawing it for too long.
    """
    pages = max(1, math.ceil(run.total / PICTURES))
    if not 1 <= page <= pages:
        raise Invalid(f"The sheets have the numbers 1 to {pages}.", pointer="/page", code="out_of_range")
    first = (page - 1) * PICTURES
    jobs = list(items_of(run).order_by("set_index").only("id", "name", "status")[first : first + PICTURES])
    images = {image.source_id: image for image in images_of(jobs)}
    tiles = [(job, images.get(job.pk)) for job in jobs]
    shown = [[job.name, job.status, image and image.sha256] for job, image in tiles]
    etag = hashlib.sha256(json.dumps([str(run.pk), page, file_format, shown]).encode()).hexdigest()
    key = f"contact-sheet:{etag}"
    content = cache.get(key)
    if content is None:
        thumbs = [image and _thumbnail_of(image) for _, image in tiles]  # each in a turn of its own
        with storage.alone(key):
            content = cache.get(key)
            if content is None:
                content = _draw(jobs, thumbs, file_format)
                cache.set(key, content, KEPT_SECONDS)
    return ContactSheet(content, FORMATS[file_format], f'"{etag}"', page, pages)


def _draw(jobs: Sequence[GenerationJob], thumbs: Sequence[str | None], file_format: str) -> bytes:
    columns = min(COLUMNS, max(1, math.ceil(math.sqrt(len(jobs)))))
    rows = max(1, math.ceil(len(jobs) / columns))
    step_x, step_y = TILE + GAP, TILE + LINE + GAP
    sheet = PIL.Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), _font()
    for place, (job, thumb) in enumerate(zip(jobs, thumbs, strict=True)):
        left, top = GAP + place % columns * step_x, GAP + place // columns * step_y
        picture = _tile(thumb) if thumb else None
        if picture is None:
            pen.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill=EMPTY)
            pen.text((left + GAP, top + GAP), job.get_status_display(), fill=INK, font=font)
        else:
            middle = (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2)
            sheet.paste(picture, middle)
        pen.text((left, top + TILE + 2), _fitting(job.name, font), fill=INK, font=font)
    target = BytesIO()
    options: dict[str, Any] = {"quality": 85} if file_format == "webp" else {"optimize": False}
    sheet.save(target, file_format.upper(), **options)
    return target.getvalue()


@lru_cache(maxsize=1)
def _font() -> Any:
    """Return the font that names are written in: one of the system, or else Pillow's own.

    Laid out letter by letter: the finer way gives up on some mixtures of scripts, and a name may be anything.
    """
    for name in FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, LETTERS, layout_engine=ImageFont.Layout.BASIC)
    return ImageFont.load_default(LETTERS)


def _thumbnail_of(image: Image) -> str | None:
    """Return the name of the thumbnail of a picture, rendered where it is missing; None if it cannot be had."""
    try:
        return thumbnails.thumbnail_of(image, thumbnails.smallest_size())
    except (ImageFileMissing, UnreadablePicture):
        return None


def _tile(thumb: str) -> PIL.Image.Image | None:
    """Return a thumbnail in the size of a tile; None if it is not there any more."""
    try:
        with storage.open_file(thumb) as file, PIL.Image.open(file) as stored:
            picture = stored.convert("RGB")
    except FileNotFoundError:
        return None
    scale = TILE / max(picture.size)
    return picture.resize([max(1, round(side * scale)) for side in picture.size])


def _fitting(name: str, font: Any) -> str:
    """Return a name that is no wider than a tile."""
    name = name.replace("_", " ")
    if font.getlength(name) <= TILE:
        return name
    while name and font.getlength(f"{name}…") > TILE:
        name = name[:-1]
    return f"{name}…"
