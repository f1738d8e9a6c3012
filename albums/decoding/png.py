"""The structure of PNG files: what it says of the picture, and the file without what a picture does not need."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO, NamedTuple

from albums.decoding.exif import UPRIGHT, orientation_of
from albums.decoding.icc import MAX_BYTES as MAX_PROFILE_BYTES
from albums.decoding.icc import clean_profile
from albums.decoding.refusals import ImpossiblePicture

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_CHUNKS = 16_384
"""A picture of the largest size in pieces of a kilobyte."""

MAX_METADATA_BYTES = 8 * 1024 * 1024
"""So much may come out of all compressed texts and profiles of one file."""

PICTURE = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
ONCE = {
    b"tRNS": range(1, 257),
    b"gAMA": range(4, 5),
    b"cHRM": range(32, 33),
    b"sRGB": range(1, 2),
    b"cICP": range(4, 5),
    b"sBIT": range(1, 5),
    b"pHYs": range(9, 10),
    b"bKGD": range(1, 7),
}
"""What a picture may have besides, and how long each may be."""

BIT_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Of each colour type."""


class Chunk(NamedTuple):
    """A piece of the file. ``offset`` is where its body begins."""

    kind: bytes
    offset: int
    length: int


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yield the chunks up to the end of the picture.

    Raises:
        ImpossiblePicture: the structure is damaged, or has far too many pieces.
    """
    file.seek(0)
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise ImpossiblePicture("The PNG file does not begin as one.")
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            raise ImpossiblePicture("The PNG file is cut off.")
        length, kind = struct.unpack(">I4s", head)
        yield Chunk(kind, position + 8, length)
        if kind == b"IEND":
            return
        position += 12 + length
    raise ImpossiblePicture("The PNG file has too many chunks.", code="too_many_chunks")


def outline(file: BinaryIO) -> tuple[int, int, int]:
    """Return width, height and the number of frames.

    Raises:
        ImpossiblePicture: the structure is damaged.
    """
    width = height = declared = controls = 0
    has_data = is_first = False
    for number, chunk in enumerate(chunks(file)):
        if (number == 0) != (chunk.kind == b"IHDR"):
            raise ImpossiblePicture("The PNG file does not begin with one header.")
        if chunk.kind == b"IHDR":
            width, height = _header(_body(file, chunk))
        elif chunk.kind == b"acTL" and not has_data and not declared:
            (declared,) = struct.unpack_from(">I", _body(file, chunk, 8))
        elif chunk.kind == b"fcTL":
            controls += 1
            is_first |= not has_data
            _, w, h, x, y = struct.unpack_from(">5I", _body(file, chunk, 26))
            if not (w and h and x + w <= width and y + h <= height):
                raise ImpossiblePicture("A frame of the PNG file lies outside of the picture.")
        elif chunk.kind == b"IDAT":
            has_data = True
    if not has_data:
        raise ImpossiblePicture("The PNG file has no pixels.")
    if not declared:
        return width, height, 1
    if declared != controls:
        raise ImpossiblePicture("The PNG file does not have the frames it declares.")
    return width, height, controls + (not is_first)


def clean(data: bytes) -> tuple[bytes, int]:
    """Return the file with nothing but the picture in it, and the orientation its EXIF data told.

    Raises:
        ImpossiblePicture: the structure is damaged, or something in it would grow beyond all measure.
    """
    return _Cleaning(data).run()


class _Cleaning:
    """One pass over one file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._view = memoryview(data)
        self._kept: list[bytes | memoryview] = [SIGNATURE]
        self._seen: set[bytes] = set()
        self._budget = MAX_METADATA_BYTES
        self._orientation = UPRIGHT
        self._is_animated = False

    def run(self) -> tuple[bytes, int]:
        for chunk in chunks(BytesIO(self._data)):
            end = chunk.offset + chunk.length
            if end + 4 > len(self._data):
                raise ImpossiblePicture("The PNG file is cut off.")
            (checksum,) = struct.unpack_from(">I", self._data, end)
            if zlib.crc32(self._view[chunk.offset - 4 : end]) != checksum:
                raise ImpossiblePicture("A checksum in the PNG file is wrong.")
            self._take(chunk, self._view[chunk.offset : end])
        return b"".join(self._kept), self._orientation

    def _take(self, chunk: Chunk, body: memoryview) -> None:
        kind = chunk.kind
        if kind in PICTURE:
            self._keep(chunk)
            if kind == b"IEND" and chunk.length:
                raise ImpossiblePicture("The end of the PNG file has something in it.")
        elif kind in ANIMATION:
            self._is_animated |= kind == b"acTL" and b"IDAT" not in self._seen
            if self._is_animated:
                self._keep(chunk)
        elif kind in ONCE:
            if kind not in self._seen and chunk.length in ONCE[kind]:
                self._keep(chunk)
        elif kind == b"iCCP":
            self._keep_profile(bytes(body))
        elif kind == b"eXIf":
            self._orientation = orientation_of(bytes(body))
        elif kind in (b"zTXt", b"iTXt"):
            self._measure_text(kind, bytes(body))
        elif not kind.isalpha() or kind[:1].isupper():
            raise ImpossiblePicture("The PNG file has a part that no program knows.")
        self._seen.add(kind)

    def _keep(self, chunk: Chunk) -> None:
        self._kept.append(self._view[chunk.offset - 8 : chunk.offset + chunk.length + 4])

    def _keep_profile(self, body: bytes) -> None:
        if b"iCCP" in self._seen:
            return
        data = self._inflate(body.partition(b"\0")[2][1:])
        profile = clean_profile(data) if len(data) <= MAX_PROFILE_BYTES else None
        if profile is not None:
            body = b"iCCPICC profile\0\0" + zlib.compress(profile)
            self._kept.append(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))

    def _measure_text(self, kind: bytes, body: bytes) -> None:
        """Refuse a bomb. The text itself is not wanted; but nobody sends one by accident."""
        rest = body.partition(b"\0")[2]
        if kind == b"zTXt":
            self._inflate(rest[1:])
        elif rest[:1] == b"\1":
            self._inflate(rest[2:].partition(b"\0")[2].partition(b"\0")[2])

    def _inflate(self, data: bytes) -> bytes:
        """Return what is compressed, as far as the budget of the file allows; nothing when it is damaged."""
        try:
            inflated = zlib.decompressobj().decompress(data, self._budget + 1)
        except zlib.error:
            return b""
        self._budget -= len(inflated)
        if self._budget < 0:
            raise ImpossiblePicture(
                "The texts or the profile of the PNG file are too large.", code="metadata_bomb"
            )
        return inflated


def _header(body: bytes) -> tuple[int, int]:
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if depth not in BIT_DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise ImpossiblePicture("The header of the PNG file makes no sense.")
    return width, height


def _body(file: BinaryIO, chunk: Chunk, length: int = 13) -> bytes:
    body = file.read(length) if chunk.length == length else b""
    if len(body) != length:
        raise ImpossiblePicture("A part of the PNG file has the wrong length.")
    return body
