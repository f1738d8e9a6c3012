"""The one way by which pictures of the system before come in: that of uploads."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from albums.decoding import PictureTooLarge, UnsupportedPicture, VettedPicture, vet
from albums.thumbnails import default_size
from imagehub import storage
from imagehub.config import get_config

HEAD_BYTES = 12


@contextmanager
def vetted_copy(source: Path, *, staging: Path) -> Iterator[VettedPicture]:
    """Check a copy of a picture as an upload is checked. What is made of it is gone when the block ends.

    The system before did not compare names with contents, so the content alone counts.

    Raises:
        OSError: the file cannot be read.
        PictureRefused: it is no picture that is accepted.
        StorageFull: the disk is full.
    """
    limits = get_config().uploads
    size = source.stat().st_size
    if size > limits.max_file_bytes:
        raise PictureTooLarge(f"A file may have {limits.max_file_bytes:,} bytes at most.")
    storage.require_space(size)
    folder = staging / uuid.uuid4().hex
    folder.mkdir(mode=0o700)
    try:
        copy = folder / "original"
        shutil.copyfile(source, copy)
        yield vet(
            copy,
            name=f"picture.{_ending_of(copy)}",
            content_type="",
            staging=folder,
            limits=limits,
            thumbnail_size=default_size(),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ending_of(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"\x89PNG"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "webp"
    raise UnsupportedPicture("It is no PNG, JPEG or WebP file.")
