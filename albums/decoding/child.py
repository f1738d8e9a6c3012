"""The program that touches what strangers send: ``python -m albums.decoding.child``, started by the pool.

It takes one picture after the other, and has nothing but what that needs: no secrets, little memory, no new
processes. It does not outlive its parent. Requests come on standard input and answers go to standard output,
one line of JSON each.
"""

import ctypes
import errno
import math
import os
import resource
import sys
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import PIL.WebPImagePlugin

from albums.decoding import jpeg, png, webp
from albums.decoding.exif import TURNS, UPRIGHT
from albums.decoding.outline import Outline, read_outline
from albums.decoding.refusals import ImpossiblePicture, PictureRefused
from albums.decoding.rendering import profile_of, render_thumbnail
from imagehub.jobs.parent_death import die_with_parent
from imagehub.jobs.protocol import decode, encode

MAX_OPEN_FILES = 32
JPEG_QUALITY = 95
"""Of a picture that is written again because it lay on its side."""

_PR_SET_NO_NEW_PRIVS = 38  # prctl(2)

_CLEANERS = {"png": png.clean, "jpeg": jpeg.clean, "webp": webp.clean}


def main(parent: int, memory_bytes: int, file_bytes: int) -> None:
    """Take pictures until the parent closes the pipe. ``parent`` is its process id."""
    die_with_parent()
    if os.getppid() != parent:
        return
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # nothing that a library prints is an answer
    _limit_itself(memory_bytes, file_bytes)
    warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
    answers.write(encode({"ready": True}))
    for line in sys.stdin.buffer:
        answers.write(encode(answer(decode(line) or {})))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request and say how it went. ``last`` asks for this process to be replaced."""
    _allow_cpu(request["seconds"])
    try:
        data = Path(request["source"]).read_bytes()
    except OSError as error:
        return {"errno": error.errno}
    try:
        clean, thumbnail = take(data, request["format"], Outline(**request["outline"]), request["size"])
    except PictureRefused as refusal:
        return {"refused": str(refusal), "code": refusal.code}
    except MemoryError:
        detail = "The picture takes more memory to decode than it may."
        return {"refused": detail, "code": "too_much_memory", "last": True}
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises, this picture cannot be read
        return {"refused": "The picture is damaged.", "code": "", "exception": type(error).__name__}
    try:
        _write(request["clean"], clean)
        if thumbnail:
            _write(request["thumbnail"], thumbnail)
    except OSError as error:
        if error.errno == errno.EFBIG:
            return {
                "refused": "The picture grows too large when it is set upright.",
                "code": "too_many_pixels",
            }
        return {"errno": error.errno}
    return {"has_thumbnail": bool(thumbnail)}


def take(data: bytes, format: str, expected: Outline, size: int) -> tuple[bytes, bytes]:  # noqa: A002
    """Return the file cleaned, and its thumbnail (empty when the picture is no larger).

    Raises:
        ImpossiblePicture: the picture is damaged, or not the one that was announced.
    """
    if read_outline(BytesIO(data), format) != expected:
        raise ImpossiblePicture("The file changed while it was read.")
    clean, orientation = _CLEANERS[format](data)
    if read_outline(BytesIO(clean), format) != expected:
        raise ImpossiblePicture("The picture is damaged.")
    PIL.Image.MAX_IMAGE_PIXELS = expected.width * expected.height
    with PIL.Image.open(BytesIO(clean), formats=[format.upper()]) as picture:
        if picture.size != (expected.width, expected.height):
            raise ImpossiblePicture("The picture is damaged.")
        picture.load()
        if expected.frames == 1 and orientation != UPRIGHT:
            upright = picture.transpose(TURNS[orientation])
            clean, _ = _CLEANERS[format](_written(upright, picture, clean, format))
            return clean, _thumbnail(upright, size)
        thumbnail = _thumbnail(picture, size)
        _decode_frames(picture, expected.frames)
    return clean, thumbnail


def _decode_frames(picture: PIL.Image.Image, frames: int) -> None:
    """Decode the rest of an animation. Its EXIF orientation is not applied: no program does that."""
    if getattr(picture, "n_frames", 1) != frames:
        raise ImpossiblePicture("The picture does not have the frames it declares.")
    for number in range(1, frames):
        picture.seek(number)
        picture.load()


def _thumbnail(picture: PIL.Image.Image, size: int) -> bytes:
    return render_thumbnail(picture, size) if max(picture.size) > size else b""


def _written(upright: PIL.Image.Image, picture: PIL.Image.Image, clean: bytes, format: str) -> bytes:  # noqa: A002
    """Return a picture that was turned as a file of the format it came in."""
    options: dict[str, Any] = {"icc_profile": profile_of(picture)}
    if format == "jpeg":
        options |= {"quality": JPEG_QUALITY, "subsampling": _subsampling(picture)}
    elif format == "png":
        options |= {"compress_level": 3}
    else:
        options |= {"lossless": b"VP8L" in clean[:64], "quality": 95, "exact": True}
    target = BytesIO()
    upright.save(target, format.upper(), **options)
    return target.getvalue()


def _subsampling(picture: PIL.Image.Image) -> int:
    """Return how coarse the colours of a JPEG are; full resolution where Pillow has no number for it."""
    if picture.mode != "RGB":
        return 0
    return max(0, PIL.JpegImagePlugin.get_sampling(picture))


def _write(path: str, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _limit_itself(memory_bytes: int, file_bytes: int) -> None:
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for which, value in limits.items():
        if sys.platform == "linux":
            resource.setrlimit(which, (value, value))
        else:
            with suppress(ValueError, OSError):
                resource.setrlimit(which, (value, value))
    if sys.platform == "linux":
        ctypes.PyDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _allow_cpu(seconds: int) -> None:
    """Let the kernel end this process when it computes longer from here on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = math.ceil(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, hard))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
