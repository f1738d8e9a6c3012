"""The way of one picture from a stranger: look at it, have it decoded by a child, believe nothing unseen."""

import logging
import os
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albums.decoding import pool
from albums.decoding.formats import HEAD_BYTES, agree_on_format, format_of
from albums.decoding.outline import Outline, check_outline, read_outline
from albums.decoding.refusals import ImpossiblePicture, PictureTooLarge, UnsupportedPicture

if TYPE_CHECKING:
    from imagehub.config_schema import UploadsConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VettedPicture:
    """A picture that may be stored: nothing is left in its file but what a picture needs."""

    path: Path
    """The cleaned file, in the staging folder. The original is left where it was."""
    thumbnail: Path | None
    """The thumbnail that lists show, rendered from the same decode; None for a picture that is no larger."""
    format: str
    """png, jpeg or webp."""
    width: int
    height: int
    frames: int


def vet(
    path: Path, *, name: str, content_type: str, staging: Path, limits: "UploadsConfig", thumbnail_size: int
) -> VettedPicture:
    """Check a file, decode it to the last pixel in a child of its own, and write what may be kept of it.

    Args:
        path: the file as it came.
        name: what its sender calls it. Only the ending counts.
        content_type: the type that its sender declares; empty when there is no declaration.
        staging: a folder of the caller's, in which the results are left.
        limits: what is accepted.
        thumbnail_size: the side of the square into which the thumbnail fits.

    Raises:
        ImpossiblePicture: it is damaged, crashes the decoder, or is beyond a limit of sides, pixels, ratio or frames.
        OSError: the file cannot be read, or the staging folder not written.
        PictureTooLarge: it has too many bytes.
        UnsupportedPicture: it is no PNG, JPEG or WebP file, or its name or declared type says otherwise.
    """
    found, outline = _look_at(path, name=name, content_type=content_type, limits=limits)
    stem = staging.resolve() / uuid.uuid4().hex
    clean, thumbnail = stem.with_suffix(f".{found}"), stem.with_suffix(".thumbnail.webp")
    try:
        answer = pool.run(
            {
                "source": str(path.resolve()),
                "clean": str(clean),
                "thumbnail": str(thumbnail),
                "format": found,
                "outline": vars(outline),
                "size": thumbnail_size,
                "seconds": limits.decode_seconds,
            },
            limits,
        )
        has_thumbnail = _has_thumbnail(answer, found)
        kept = _look_again(clean, found)
        if kept not in (outline, Outline(outline.height, outline.width, outline.frames)):
            raise _crashed()
        if has_thumbnail:
            small = _look_again(thumbnail, "webp")
            if max(small.width, small.height) > thumbnail_size or small.frames != 1:
                raise _crashed()
    except BaseException:
        clean.unlink(missing_ok=True)
        thumbnail.unlink(missing_ok=True)
        raise
    return VettedPicture(
        clean, thumbnail if has_thumbnail else None, found, kept.width, kept.height, kept.frames
    )


def _look_at(path: Path, *, name: str, content_type: str, limits: "UploadsConfig") -> tuple[str, Outline]:
    """Return what can be said of a file without decoding it, if nothing speaks against taking it."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.max_file_bytes:
            raise PictureTooLarge(f"The file has more than {limits.max_file_bytes:,} bytes.")
        if not size:
            raise UnsupportedPicture("The file is empty.", code="empty_file")
        found = agree_on_format(file.read(HEAD_BYTES), name=name, content_type=content_type)
        outline = read_outline(file, found)
    check_outline(outline, limits)
    return found, outline


def _has_thumbnail(answer: dict[str, Any], found: str) -> bool:
    """Tell whether the child wrote a thumbnail too, or raise what it says went wrong."""
    match answer:
        case {"has_thumbnail": bool(has_thumbnail)}:
            return has_thumbnail
        case {"errno": int(number)}:
            raise OSError(number, os.strerror(number))
        case {"refused": str(detail), "code": str(code)}:
            if "exception" in answer:
                logger.info("A %s picture could not be decoded: %s", found, answer["exception"])
            raise ImpossiblePicture(detail, code=code)
    raise _crashed()


def _look_again(path: Path, found: str) -> Outline:
    """Return the outline of a file that the child left. The child met a stranger: it may be anyone's by now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _crashed() from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if not is_file or format_of(file.read(HEAD_BYTES)) != found:
            raise _crashed()
        return read_outline(file, found)


def _crashed() -> ImpossiblePicture:
    return ImpossiblePicture("The picture crashes the decoder.", code="decoder_crashed")
