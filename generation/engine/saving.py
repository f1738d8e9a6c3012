"""Pixels to a PNG file: whole, on disk, and under its name only then."""

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from training.pipelines.failures import FailureCode, RequestFailed

COMPRESS_LEVEL = 1
"""Level 6 takes more than three times as long for a tenth of the size."""

FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class SavedPicture:
    sha256: str
    size_bytes: int


def encode_png(pixels: np.ndarray, text: Mapping[str, str]) -> bytes:
    """Return pixels (height x width x 3, uint8) as a PNG with text chunks.

    Pillow chooses tEXt for what Latin-1 can spell and iTXt for the rest, as the standard asks.
    """
    chunks = PngInfo()
    for keyword, value in text.items():
        chunks.add_text(keyword, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=chunks)
    return buffer.getvalue()


def save_png(pixels: np.ndarray, output: Path, text: Mapping[str, str]) -> SavedPicture:
    """Write a PNG so that ``output`` is either the whole picture or not there.

    Raises:
        RequestFailed: the disk is full (``disk_full``) or the file cannot be written
            (``storage_error``).
    """
    content = encode_png(pixels, text)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(output)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _storage_failure(error) from error
    return SavedPicture(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def _storage_failure(error: OSError) -> RequestFailed:
    if error.errno in FULL:
        return RequestFailed(FailureCode.DISK_FULL, "The disk is full; the picture could not be kept.")
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return RequestFailed(FailureCode.STORAGE_ERROR, f"The picture could not be written: {reason}.")
