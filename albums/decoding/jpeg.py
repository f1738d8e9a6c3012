"""The structure of JPEG files: what it says of the picture, and the file without what a picture does not need."""

import re
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO, NamedTuple

from albums.decoding.exif import UPRIGHT, orientation_of
from albums.decoding.icc import MAX_BYTES as MAX_PROFILE_BYTES
from albums.decoding.icc import clean_profile
from albums.decoding.refusals import ImpossiblePicture

MAX_SEGMENTS = 8192
MAX_FILLING = 1024
MAX_SCANS = 100
"""Each scan of a progressive picture costs a pass over all of it; encoders make about ten."""

SOI, EOI, SOS, DNL, DRI, DQT, DHT = 0xD8, 0xD9, 0xDA, 0xDC, 0xDD, 0xDB, 0xC4
APP0, APP1, APP2, APP14, COM = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive. Programs that show pictures know no others."""

OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {DHT, 0xC8, 0xCC}
PICTURE = FRAMES | {DQT, DHT, DRI, DNL, SOS}

_NO_SEGMENTS = frozenset({0x00, 0x01, SOI, EOI, 0xFF, *range(0xD0, 0xD8)})

JFIF_BYTES = 14
ADOBE_BYTES = 12
PROFILE = b"ICC_PROFILE\0"
PROFILE_BYTES = 65_533 - len(PROFILE) - 2
"""Of a profile in one segment."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Ends the pixels of a scan: neither a stuffed byte, nor filling, nor a restart marker."""


class Segment(NamedTuple):
    """A piece of the file. ``offset`` is where its body begins, behind the length."""

    marker: int
    offset: int
    length: int


def segments(file: BinaryIO, position: int = 2) -> Iterator[Segment]:
    """Yield the segments from a position up to the pixels of the next scan, or up to the end of the picture.

    Raises:
        ImpossiblePicture: the structure is damaged, or has far too many pieces.
    """
    filling = 0
    for _ in range(MAX_SEGMENTS):
        file.seek(position)
        head = file.read(4)
        while head[:2] == b"\xff\xff" and filling < MAX_FILLING:
            filling += 1
            position += 1
            head = head[1:] + file.read(1)
        if head[:2] == b"\xff\xd9":
            yield Segment(EOI, position + 2, 0)
            return
        if len(head) < 4 or head[0] != 0xFF or head[1] in _NO_SEGMENTS:
            raise ImpossiblePicture("The JPEG file is cut off or damaged.")
        length = struct.unpack_from(">H", head, 2)[0] - 2
        if length < 0:
            raise ImpossiblePicture("A part of the JPEG file has the wrong length.")
        yield Segment(head[1], position + 4, length)
        position += 4 + length
        if head[1] == SOS:
            return
    raise ImpossiblePicture("The JPEG file has too many segments.", code="too_many_segments")


def outline(file: BinaryIO) -> tuple[int, int, int]:
    """Return width, height and the number of frames, which is one.

    Raises:
        ImpossiblePicture: the structure is damaged, or of a kind that programs do not show.
    """
    for segment in segments(file):
        if segment.marker in FRAMES:
            body = file.read(6)
            if len(body) < 6:
                raise ImpossiblePicture("The JPEG file is cut off or damaged.")
            depth, height, width, components = struct.unpack(">BHHB", body)
            if depth != 8 or components not in (1, 3, 4) or not height:
                raise ImpossiblePicture("The JPEG file is of a kind that few programs show.")
            return width, height, 1
        if segment.marker in OTHER_FRAMES:
            raise ImpossiblePicture("The JPEG file is of a kind that few programs show.")
        if segment.marker == SOS:
            break
    raise ImpossiblePicture("The JPEG file has no pixels.")


def clean(data: bytes) -> tuple[bytes, int]:
    """Return the file with nothing but the picture in it, and the orientation its EXIF data told.

    Raises:
        ImpossiblePicture: the structure is damaged, or has far too many pieces.
    """
    return _Cleaning(data).run()


class _Cleaning:
    """One pass over one file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._view = memoryview(data)
        self._kept: list[bytes | memoryview] = []
        self._jfif = self._adobe = b""
        self._profile: dict[int, bytes] = {}
        self._orientation: int | None = None

    def run(self) -> tuple[bytes, int]:
        file, position, is_over = BytesIO(self._data), 2, False
        for _ in range(MAX_SCANS + 1):
            for segment in segments(file, position):
                is_over = segment.marker == EOI
                self._take(segment)
            if is_over:
                head = [b"\xff\xd8", self._jfif, self._adobe, *self._profile_segments()]
                return b"".join([*head, *self._kept, b"\xff\xd9"]), self._orientation or UPRIGHT
            start = segment.offset + segment.length
            found = _MARKER.search(self._data, start)
            if found is None:
                raise ImpossiblePicture("The JPEG file is cut off.")
            position = found.start()
            self._kept.append(self._view[start:position])
        raise ImpossiblePicture("The JPEG file has too many scans.", code="too_many_scans")

    def _take(self, segment: Segment) -> None:
        marker, end = segment.marker, segment.offset + segment.length
        if end > len(self._data):
            raise ImpossiblePicture("The JPEG file is cut off.")
        if marker in PICTURE:
            self._kept.append(self._view[segment.offset - 4 : end])
            return
        body = self._data[segment.offset : end] if marker in (APP0, APP1, APP2, APP14) else b""
        if marker == APP0 and body.startswith(b"JFIF\0") and len(body) >= JFIF_BYTES and not self._jfif:
            self._jfif = _segment(APP0, body[: JFIF_BYTES - 2] + b"\0\0")  # without its thumbnail
        elif marker == APP14 and body.startswith(b"Adobe") and len(body) >= ADOBE_BYTES and not self._adobe:
            self._adobe = _segment(APP14, body[:ADOBE_BYTES])
        elif marker == APP2 and body.startswith(PROFILE) and len(body) > len(PROFILE) + 2:
            self._profile.setdefault(body[len(PROFILE)], body[len(PROFILE) + 2 :])
        elif marker == APP1 and body.startswith(b"Exif\0\0") and self._orientation is None:
            self._orientation = orientation_of(body)
        elif marker not in range(0xE0, 0xF0) and marker not in (COM, EOI):
            raise ImpossiblePicture("The JPEG file has a part that few programs know.")

    def _profile_segments(self) -> list[bytes]:
        numbers = range(1, len(self._profile) + 1)
        if not self._profile or set(numbers) != self._profile.keys():
            return []
        if sum(map(len, self._profile.values())) > MAX_PROFILE_BYTES:
            return []
        profile = clean_profile(b"".join(self._profile[number] for number in numbers)) or b""
        pieces = [profile[i : i + PROFILE_BYTES] for i in range(0, len(profile), PROFILE_BYTES)]
        return [
            _segment(APP2, PROFILE + bytes([number, len(pieces)]) + piece)
            for number, piece in enumerate(pieces, start=1)
        ]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
