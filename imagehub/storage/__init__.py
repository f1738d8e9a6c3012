"""The one module through which files are stored: on a local disk, or in a bucket of an S3-compatible service.

A file is named by its content (``images/ab/<sha256>.png``), so equal bytes are one file, and a name never
says anything but what is in it. Names are relative to the media root and use ``/``: only they stand in rows.
Whatever dies in between, a name holds either nothing or the whole file.

Staging is a folder of this machine in either case, and so is what :func:`path_of` names.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from django.conf import settings
from django.core.files.storage import storages

from imagehub.errors import StillBusy
from imagehub.storage.disk import Disk
from imagehub.storage.media_folder import naming_a_full_disk, open_regular, path_of, require_space, root
from imagehub.storage.names import (
    IMAGES,
    THUMBNAILS,
    FoundFile,
    StorageFull,
    StorageUnreachable,
    StoredFile,
    UnsafePath,
    named_by_content,
)
from imagehub.storage.staging import delete_staging_dir, staging_dir, stale_staging, sweep_staging
from imagehub.storage.turns import alone

if TYPE_CHECKING:
    from imagehub.storage.bucket import Bucket

__all__ = [
    "IMAGES",
    "THUMBNAILS",
    "FoundFile",
    "StillBusy",
    "StorageFull",
    "StorageUnreachable",
    "StoredFile",
    "UnsafePath",
    "adopt_file",
    "alone",
    "delete",
    "delete_all",
    "delete_staging_dir",
    "exists",
    "is_local",
    "local_copy",
    "location_of",
    "missing",
    "naming_a_full_disk",
    "open_file",
    "path_of",
    "problem",
    "read_part",
    "require_space",
    "root",
    "signed_url",
    "size",
    "staging_dir",
    "stale_staging",
    "store_bytes",
    "sweep_staging",
    "walk",
    "write_file",
]


def store_bytes(data: bytes, *, suffix: str) -> StoredFile:
    """Store some bytes under the name of their content.

    Raises:
        StorageFull: the disk is full, or would be.
        StorageUnreachable: the bucket does not answer. So may all functions here, where there is a bucket.
    """
    stored = named_by_content(hashlib.sha256(data), len(data), suffix)
    _store().store(stored, data)
    return stored


def adopt_file(path: Path, *, suffix: str = "") -> StoredFile:
    """Take a finished file into the store; afterwards it is no longer where it was.

    It is renamed where that is possible and copied otherwise. ``suffix`` stands for the file's own.

    Raises:
        FileNotFoundError: there is no such file.
        StorageFull: the disk is full, or would be.
        UnsafePath: it is a symbolic link, or no regular file.
    """
    with open_regular(path) as source:
        digest = hashlib.file_digest(source, "sha256")
        stored = named_by_content(digest, source.tell(), suffix or path.suffix.lstrip(".").lower())
        _store().adopt(stored, path, source)
    return stored


def write_file(name: str, data: bytes) -> None:
    """Write a file that is made from others, such as a thumbnail, under a name of the caller's choice.

    Raises:
        StorageFull: the disk is full, or would be.
        UnsafePath: see :func:`path_of`. So may all functions here that take a name.
    """
    _store().write(name, data)


def exists(name: str) -> bool:
    """Tell whether there is such a stored file."""
    return _store().exists(name)


def missing(names: Iterable[str]) -> set[str]:
    """Return those of these names that are no stored files. A bucket is asked for several at once."""
    return _store().missing(set(names))


def size(name: str) -> int:
    """Return how many bytes a stored file has.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return _store().size(name)


def open_file(name: str) -> BinaryIO:
    """Open a stored file for reading. From a bucket it is fetched first, into a file that goes when it is closed.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return _store().open(name)


def read_part(name: str, wanted: range) -> Iterator[bytes]:
    """Return the bytes of a stored file from ``wanted.start`` to before ``wanted.stop``, piece by piece.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return _store().read_part(name, wanted)


def local_copy(name: str) -> AbstractContextManager[Path]:
    """Lend the path of a file with the content of a stored one, for programs that read from a path. Not to be changed.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return _store().local_copy(name)


def delete(name: str, *, untouched_for: timedelta | None = None) -> bool:
    """Delete a stored file; return whether it was there and, as asked, old enough.

    A file that is adopted again becomes new, and no adoption runs while the age is looked at: who deletes
    only what has been untouched for a while takes nothing away from a row that is about to be written.
    In a bucket this holds among the processes that share the media root: delete from one machine only.
    """
    return _store().delete(name, untouched_for=untouched_for)


def delete_all(names: Collection[str], *, untouched_for: timedelta | None = None) -> set[str]:
    """Delete stored files, several at once; return the names of those that were there and, as asked, old enough.

    As :func:`delete` for each: but one after another they would wait for the disk, or the bucket, each by itself.
    """
    return _store().delete_all(names, untouched_for=untouched_for)


def walk(area: str) -> Iterator[FoundFile]:
    """Yield every file below a folder of the store, such as ``IMAGES``, in the order of their names."""
    return _store().walk(area)


def signed_url(name: str, *, content_type: str, disposition: str, cache_control: str) -> str | None:
    """Return an address at which the bucket itself hands out a file for a short while, with these headers.

    None for files on the disk, and where :setting:`S3_PROXY` says that the bucket is not for browsers.
    """
    if settings.S3_PROXY:
        return None
    return _store().signed_url(
        name, content_type=content_type, disposition=disposition, cache_control=cache_control
    )


def location_of(name: str) -> str:
    """Return where a stored file lies, in words for staff: an absolute path, or the address of an object."""
    return _store().location_of(name)


def is_local() -> bool:
    """Tell whether files are on the disk, below the media root."""
    return _store().is_local


def problem() -> str:
    """Return a sentence about what keeps files from being stored, or nothing."""
    return _store().problem()


def _store() -> "Disk | Bucket":
    if "media" not in settings.STORAGES:
        return Disk()
    from imagehub.storage.bucket import Bucket  # needs boto3, which only a bucket needs

    return Bucket(storages["media"])
