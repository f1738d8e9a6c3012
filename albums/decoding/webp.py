"""The structure of WebP files: what it says of the picture, and the file without what a picture does not need."""

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO, NamedTuple

from albums.decoding.exif import UPRIGHT, orientation_of
from albums.decoding.icc import clean_profile
from albums.decoding.refusals import ImpossiblePicture

MAX_CHUNKS = 2048
MAX_PARTS_OF_FRAME = 8
BITSTREAMS = (b"VP8 ", b"VP8L")
HEADER_BYTES = 10
"""So much of a bitstream tells its size."""

HAS_PROFILE, HAS_ALPHA, IS_ANIMATED = 0x20, 0x10, 0x02
"""In the flags of the file. What else may stand there is about metadata."""

FRAME_BYTES = 16
"""Of the header of a frame."""


class Chunk(NamedTuple):
    """A piece of the file. ``offset`` is where its body begins."""

    kind: bytes
    offset: int
    length: int


_Part = tuple[bytes, bytes | memoryview]
"""A kind and a body, of what is kept."""


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yield the chunks of the file, as far as the file says that it reaches.

    Raises:
        ImpossiblePicture: the structure is damaged, or has far too many pieces.
    """
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WEBP":
        raise ImpossiblePicture("The WebP file does not begin as one.")
    yield from _within(file, 12, 8 + struct.unpack_from("<I", head, 4)[0], MAX_CHUNKS)


def _within(file: BinaryIO, position: int, end: int, most: int) -> Iterator[Chunk]:
    for _ in range(most):
        if position >= end:
            return
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            raise ImpossiblePicture("The WebP file is cut off.")
        kind, length = struct.unpack("<4sI", head)
        if position + 8 + length > end:
            raise ImpossiblePicture("A part of the WebP file has the wrong length.")
        yield Chunk(kind, position + 8, length)
        position += 8 + length + length % 2
    if position < end:
        raise ImpossiblePicture("The WebP file has too many chunks.", code="too_many_chunks")


def outline(file: BinaryIO) -> tuple[int, int, int]:
    """Return width, height and the number of frames.

    Raises:
        ImpossiblePicture: the structure is damaged, or its parts disagree about sizes.
    """
    parts = list(chunks(file))
    if not parts or parts[0].kind not in (*BITSTREAMS, b"VP8X"):
        raise ImpossiblePicture("The WebP file does not begin with a picture.")
    if parts[0].kind != b"VP8X":
        return *_size(file, parts[0]), 1
    flags, width, height = _extended(file, parts[0])
    if not flags & IS_ANIMATED:
        pictures = [part for part in parts if part.kind in BITSTREAMS]
        if len(pictures) != 1 or _size(file, pictures[0]) != (width, height):
            raise ImpossiblePicture("The sizes in the WebP file disagree.")
        return width, height, 1
    frames = [part for part in parts if part.kind == b"ANMF"]
    for frame in frames:
        _check_frame(file, frame, width, height)
    if not frames or not any(part.kind == b"ANIM" for part in parts):
        raise ImpossiblePicture("The WebP file has no frames.")
    return width, height, len(frames)


def _check_frame(file: BinaryIO, frame: Chunk, width: int, height: int) -> None:
    file.seek(frame.offset)
    head = file.read(FRAME_BYTES)
    if frame.length < FRAME_BYTES or len(head) < FRAME_BYTES:
        raise ImpossiblePicture("A part of the WebP file has the wrong length.")
    x, y, w, h = (int.from_bytes(head[i : i + 3], "little") for i in (0, 3, 6, 9))
    pictures = [part for part in _parts_of(file, frame) if part.kind in BITSTREAMS]
    if len(pictures) != 1 or _size(file, pictures[0]) != (w + 1, h + 1):
        raise ImpossiblePicture("The sizes in the WebP file disagree.")
    if 2 * x + w + 1 > width or 2 * y + h + 1 > height:
        raise ImpossiblePicture("A frame of the WebP file lies outside of the picture.")


def _parts_of(file: BinaryIO, frame: Chunk) -> Iterator[Chunk]:
    return _within(file, frame.offset + FRAME_BYTES, frame.offset + frame.length, MAX_PARTS_OF_FRAME)


def _extended(file: BinaryIO, chunk: Chunk) -> tuple[int, int, int]:
    file.seek(chunk.offset)
    body = file.read(10)
    if chunk.length != 10 or len(body) < 10:
        raise ImpossiblePicture("A part of the WebP file has the wrong length.")
    return body[0], int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1


def _size(file: BinaryIO, chunk: Chunk) -> tuple[int, int]:
    """Return the sides that a bitstream itself tells."""
    file.seek(chunk.offset)
    body = file.read(HEADER_BYTES)
    if chunk.length < HEADER_BYTES or len(body) < HEADER_BYTES:
        raise ImpossiblePicture("A part of the WebP file has the wrong length.")
    if chunk.kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 1)
        if body[0] != 0x2F or bits >> 29:
            raise ImpossiblePicture("The WebP file is damaged.")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if body[0] & 1 or body[3:6] != b"\x9d\x01\x2a":
        raise ImpossiblePicture("The WebP file is damaged.")
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


def clean(data: bytes) -> tuple[bytes, int]:
    """Return the file with nothing but the picture in it, and the orientation its EXIF data told.

    Raises:
        ImpossiblePicture: the structure is damaged, or has far too many pieces.
    """
    file, view = BytesIO(data), memoryview(data)
    kept: list[_Part] = []
    profile: bytes | None = None
    orientation = UPRIGHT
    for chunk in chunks(file):
        body = view[chunk.offset : chunk.offset + chunk.length]
        if len(body) < chunk.length:
            raise ImpossiblePicture("The WebP file is cut off.")
        if chunk.kind in (*BITSTREAMS, b"VP8X", b"ALPH", b"ANIM"):
            kept.append((chunk.kind, body))
        elif chunk.kind == b"ANMF":
            kept.append((chunk.kind, _clean_frame(file, view, chunk)))
        elif chunk.kind == b"ICCP" and profile is None:
            profile = clean_profile(bytes(body))
        elif chunk.kind == b"EXIF":
            orientation = orientation_of(bytes(body))
    if not kept:
        raise ImpossiblePicture("The WebP file does not begin with a picture.")
    if kept[0][0] == b"VP8X":
        kept = _extended_parts(kept, profile)
    else:
        del kept[1:]
    content = b"WEBP" + b"".join(_joined(kept))
    return b"RIFF" + struct.pack("<I", len(content)) + content, orientation


def _extended_parts(kept: list[_Part], profile: bytes | None) -> list[_Part]:
    """Return the parts of a file with a head of its own: it says what is there, and only that is there."""
    (_, head), *rest = kept
    if len(head) != 10:
        raise ImpossiblePicture("A part of the WebP file has the wrong length.")
    wanted = (b"ANIM", b"ANMF") if head[0] & IS_ANIMATED else (b"ALPH", *BITSTREAMS)
    flags = head[0] & (HAS_ALPHA | IS_ANIMATED) | (HAS_PROFILE if profile else 0)
    parts: list[_Part] = [(b"VP8X", bytes([flags, 0, 0, 0]) + bytes(head[4:]))]
    if profile:
        parts.append((b"ICCP", profile))
    return parts + [part for part in rest if part[0] in wanted]


def _clean_frame(file: BinaryIO, view: memoryview, frame: Chunk) -> bytes:
    parts: list[_Part] = [
        (part.kind, view[part.offset : part.offset + part.length])
        for part in _parts_of(file, frame)
        if part.kind in (*BITSTREAMS, b"ALPH")
    ]
    return b"".join([view[frame.offset : frame.offset + FRAME_BYTES], *_joined(parts)])


def _joined(parts: list[_Part]) -> Iterator[bytes | memoryview]:
    for kind, body in parts:
        yield struct.pack("<4sI", kind, len(body))
        yield body
        if len(body) % 2:
            yield b"\0"
