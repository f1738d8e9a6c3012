"""Thumbnails of pictures that are not taken in yet: rendered under guard, for no browser is to meet a stranger's bytes."""

import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

from albums.decoding import ImpossiblePicture, vet
from albums.services.images import SUFFIXES
from albums.services.uploads import quarantine
from imagehub import storage
from imagehub.config import get_config
from imagehub.errors import ImageHubError
from scraping.models import ImageOutcome, ScrapedImage
from scraping.services.folders import folder_of, thumbnails_of

SIDE = 320
"""Of the square into which a thumbnail fits, in pixels."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class PictureGone(ImageHubError):
    code = "picture_gone"
    title = "The file of the picture is not there any more"


def thumbnail_of(item: ScrapedImage) -> bytes:
    """Return a thumbnail of what a crawl has fetched, as WebP. It is rendered once, and kept.

    Raises:
        PictureGone: its file is not there.
        PictureRefused: it is damaged, or of a size that is never taken in.
        StorageFull: the disk is full.
    """
    # The crawler has met the web: what it tells names no other file.
    if not _SHA256.fullmatch(item.sha256) or item.format not in SUFFIXES:
        raise PictureGone("There is no file of the picture.")
    kept = thumbnails_of(item.job) / f"{item.sha256}.webp"
    with suppress(OSError):
        return _read(kept)
    path = folder_of(item.job).pictures / item.file_name
    try:
        content = _render(path, longer_side=max(item.width, item.height))
    except FileNotFoundError as error:
        raise PictureGone("The file of the picture is gone.") from error
    _keep(kept, content)
    # Whoever decides or purges meanwhile deletes what is kept after having changed the row: one of us deletes this one.
    if not ScrapedImage.objects.filter(pk=item.pk, state=ImageOutcome.REVIEW).exists():
        with suppress(OSError):
            kept.unlink()
            kept.parent.rmdir()
    return content


def _read(path: Path) -> bytes:
    """Return what is in a file, but not what a link leads to."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read()


def _render(path: Path, *, longer_side: int) -> bytes:
    # A picture that is no larger than its thumbnail gets none, and the bytes that are left are a stranger's.
    size = max(1, min(SIDE, longer_side - 1))
    with quarantine() as staging, storage.naming_a_full_disk():
        vetted = vet(
            path,
            name=path.name,
            content_type="",
            staging=staging,
            limits=get_config().uploads,
            thumbnail_size=size,
        )
        if vetted.thumbnail is None:
            raise ImpossiblePicture("The picture is too small to be shown.")
        return vetted.thumbnail.read_bytes()


def _keep(path: Path, content: bytes) -> None:
    """Write a thumbnail, whole or not at all. That it cannot be kept does not matter."""
    partial = path.with_name(f"{uuid.uuid4().hex}.part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
