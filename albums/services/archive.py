"""Albums as ZIP files, written while somebody reads them.

Pictures do not get smaller, so their bytes are stored as they are. That makes the length of an archive known before the
first of its files is opened. The standard library and zipstream-ng keep an object for each entry until the end, 37 to 50
MiB for 100,000 images, so the few records of the format (APPNOTE 4.3) are written here.
"""

import json
import logging
import struct
import unicodedata
from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, NamedTuple
from zipfile import ZIP64_LIMIT, ZIP_FILECOUNT_LIMIT
from zlib import crc32

from albums.models import Album, ImageQuerySet
from albums.services.images import SUFFIXES
from imagehub import storage

logger = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024
LIST_IN_MEMORY_BYTES = 1024 * 1024
ROWS_AT_ONCE = 2000

LONGEST_STEM_BYTES = 200
"""File systems know names of up to 255 bytes, and the number and the suffix need some."""
UNFIT_FOR_NAMES = frozenset('/\\:*?"<>|')
FEWEST_DIGITS = 3

MISSING = b"The file of this image is missing or damaged: the store does not have what it should.\n"
SAYS_MISSING = {"png": "txt", "jpg": "txt", "webp": "text"}
"""What replaces a suffix, in as many letters: see :meth:`Archive._open`."""

FIRST_YEAR, LAST_YEAR = 1980, 2107

# Every local header is followed by the content and a descriptor, because the checksum is not known before.
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
DESCRIPTOR = struct.Struct("<4s3L")
CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
LARGE_OFFSET = struct.Struct("<2HQ")
LARGE_END = struct.Struct("<4sQ2H2L4Q")
LARGE_END_LOCATOR = struct.Struct("<4sLQL")
END = struct.Struct("<4s4H2LH")

VERSION, LARGE_VERSION = 20, 45
UNIX = 3 << 8
READABLE = 0o100644 << 16
HAS_DESCRIPTOR, IS_UNICODE = 1 << 3, 1 << 11
ELSEWHERE, ELSEWHERE_SHORT = 0xFFFFFFFF, 0xFFFF
"""Instead of a number that is too large for its field, and stands in a larger one."""


class Entry(NamedTuple):
    """One file of an archive."""

    name: str
    storage_name: str
    size_bytes: int
    date: int
    time: int


class Archive:
    """Images as one ZIP file: iterate over it for its bytes, and close it.

    What it holds is written down at the beginning, in a temporary file where it is much. So whatever happens to the
    album in the meantime, the archive is as long as ``size_bytes`` says; and however many pictures there are, no more
    memory is needed.
    """

    def __init__(self, images: ImageQuerySet, *, digits: int = FEWEST_DIGITS) -> None:
        self.images = 0
        self._entries = SpooledTemporaryFile(  # noqa: SIM115 - `close` does
            max_size=LIST_IN_MEMORY_BYTES, mode="w+", encoding="utf-8"
        )
        try:
            self.size_bytes = self._list(images, digits)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Generator[bytes, None, None]:
        """Yield the archive, a part at a time.

        Raises:
            OSError: a file cannot be read any more. What was yielded is worth nothing.
        """
        self._entries.seek(0)
        position = 0
        with SpooledTemporaryFile(max_size=LIST_IN_MEMORY_BYTES) as contents:
            part = bytearray()
            for line in self._entries:
                entry = Entry(*json.loads(line))
                name, content = self._open(entry)
                header = _local_header(entry, name)
                part += header
                checksum = written = 0
                with closing(content):
                    for chunk in content:
                        checksum, written = crc32(chunk, checksum), written + len(chunk)
                        part += chunk
                        if len(part) >= CHUNK_BYTES:
                            yield bytes(part)
                            part.clear()
                if written != entry.size_bytes:
                    raise OSError(f"{entry.storage_name} was changed while it was read.")
                part += DESCRIPTOR.pack(b"PK\x07\x08", checksum, written, written)
                contents.write(_central_header(entry, name, checksum, position))
                position += len(header) + written + DESCRIPTOR.size
            yield bytes(part)
            end = _end(self.images, contents.tell(), position)
            contents.seek(0)
            while chunk := contents.read(CHUNK_BYTES):
                yield chunk
            yield end

    def close(self) -> None:
        self._entries.close()

    def _list(self, images: ImageQuerySet, digits: int) -> int:
        """Write down what will be in the archive; return how long it will be, in bytes."""
        rows = images.values_list("name", "storage_name", "format", "size_bytes", "created_at")
        position = contents = 0
        for name, storage_name, file_format, size_bytes, created_at in rows.iterator(ROWS_AT_ONCE):
            self.images += 1
            entry_name = _entry_name(f"{self.images:0{digits}}", name, SUFFIXES[file_format])
            entry = Entry(entry_name, storage_name, size_bytes, *_zip_time(created_at))
            self._entries.write(json.dumps(entry) + "\n")
            name_bytes = len(entry_name.encode())
            contents += (
                CENTRAL_HEADER.size + name_bytes + (LARGE_OFFSET.size if position > ZIP64_LIMIT else 0)
            )
            position += LOCAL_HEADER.size + name_bytes + size_bytes + DESCRIPTOR.size
        return position + contents + len(_end(self.images, contents, position))

    def _open(self, entry: Entry) -> tuple[bytes, Generator[bytes, None, None]]:
        """Return the name and the content of an entry.

        In the place of a file that is not what its row says stands a text that says so, as long as the picture would be:
        the length has been promised.
        """
        try:
            file = storage.open_file(entry.storage_name)
        except (FileNotFoundError, storage.UnsafePath):
            return _instead_of(entry)
        if file.seek(0, 2) != entry.size_bytes:
            file.close()
            return _instead_of(entry)
        file.seek(0)
        return entry.name.encode(), _chunks(file)


def archive_album(album: Album, images: ImageQuerySet) -> Archive:
    """Return an archive of these images of an album, in its order."""
    images = images.in_album(album)
    # Counted, and not asked of the album: how many others there are is not for everybody to know.
    digits = max(FEWEST_DIGITS, len(str(images.count())))
    return Archive(images.order_by("position", "id"), digits=digits)


def _chunks(file: BinaryIO) -> Generator[bytes, None, None]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _instead_of(entry: Entry) -> tuple[bytes, Generator[bytes, None, None]]:
    logger.error("An archive lacks %s, which is missing or damaged: see check_storage", entry.storage_name)
    stem, _, suffix = entry.name.rpartition(".")
    return f"{stem}.{SAYS_MISSING[suffix]}".encode(), _padded(MISSING, entry.size_bytes)


def _padded(text: bytes, size_bytes: int) -> Generator[bytes, None, None]:
    yield text[:size_bytes]
    left = size_bytes - len(text)
    while left > 0:
        yield b"\n" * min(left, CHUNK_BYTES)
        left -= CHUNK_BYTES


def _entry_name(number: str, name: str, suffix: str) -> str:
    """Return a name that every system can write, whatever the image is called. The number makes it the only one."""
    stem = unicodedata.normalize("NFC", name).removesuffix(f".{suffix}")
    stem = "".join("_" if char in UNFIT_FOR_NAMES or not char.isprintable() else char for char in stem)
    stem = stem.encode()[:LONGEST_STEM_BYTES].decode(errors="ignore").strip(" ._")
    return f"{number} {stem}.{suffix}" if stem else f"{number}.{suffix}"


def _zip_time(time: datetime) -> tuple[int, int]:
    """Return a time as the format has it: a date and a time of day, in UTC and steps of two seconds."""
    time = time.astimezone(UTC)
    year = min(max(time.year, FIRST_YEAR), LAST_YEAR)
    date = (year - FIRST_YEAR) << 9 | time.month << 5 | time.day
    return date, time.hour << 11 | time.minute << 5 | time.second // 2


def _flags(name: bytes) -> int:
    return HAS_DESCRIPTOR | (0 if name.isascii() else IS_UNICODE)


def _local_header(entry: Entry, name: bytes) -> bytes:
    header = LOCAL_HEADER.pack(
        b"PK\x03\x04", VERSION, _flags(name), 0, entry.time, entry.date, 0, 0, 0, len(name), 0
    )
    return header + name


def _central_header(entry: Entry, name: bytes, checksum: int, position: int) -> bytes:
    is_far = position > ZIP64_LIMIT
    extra = LARGE_OFFSET.pack(1, 8, position) if is_far else b""
    version = LARGE_VERSION if is_far else VERSION
    header = CENTRAL_HEADER.pack(
        b"PK\x01\x02", UNIX | version, version, _flags(name), 0, entry.time, entry.date,
        checksum, entry.size_bytes, entry.size_bytes, len(name), len(extra), 0, 0, 0,
        READABLE, ELSEWHERE if is_far else position,
    )  # fmt: skip
    return header + name + extra


def _end(count: int, contents: int, position: int) -> bytes:
    """Return what stands behind the table of contents, which is so long and begins at this position."""
    end = b""
    if count > ZIP_FILECOUNT_LIMIT or max(contents, position) > ZIP64_LIMIT:
        end += LARGE_END.pack(
            b"PK\x06\x06", 44, LARGE_VERSION, LARGE_VERSION, 0, 0, count, count, contents, position
        )
        end += LARGE_END_LOCATOR.pack(b"PK\x06\x07", 0, position + contents, 1)
    short_count = min(count, ELSEWHERE_SHORT)
    return end + END.pack(
        b"PK\x05\x06", 0, 0, short_count, short_count,
        min(contents, ELSEWHERE), min(position, ELSEWHERE), 0,
    )  # fmt: skip
