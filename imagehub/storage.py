"""The one module through which files are stored.

A file is named by its content (``images/ab/<sha256>.png``), so equal bytes are one file, and a name never
says anything but what is in it. Names are relative to the media root and use ``/``: only they stand in rows.
Whatever dies in between, a name holds either nothing or the whole file.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from imagehub.config import get_config
from imagehub.errors import ImageHubError, NotReady
from imagehub.roots import media_root

IMAGES = "images"
THUMBNAILS = "thumbnails"
STAGING = "staging"

FILE_MODE = 0o644
CHUNK_BYTES = 1 << 20
SUFFIX = re.compile(r"[a-z0-9]{1,8}")
STAGING_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class UnsafePath(ImageHubError):
    """A name that leads out of the media root, or might."""

    code = "unsafe_path"
    title = "The name of a stored file is not safe"


class StorageFull(NotReady):
    code = "disk_full"
    title = "The disk is full"


@dataclass(frozen=True)
class StoredFile:
    """A file in the store: all that a row needs to know of it."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class FoundFile:
    """A file met while walking through the store, and when it was last written or adopted again."""

    name: str
    size_bytes: int
    modified_at: float


def root() -> Path:
    """Return the media root in force now."""
    return media_root()


def path_of(name: str) -> Path:
    """Return the absolute path of a stored file, which need not exist.

    Raises:
        UnsafePath: the name is absolute, climbs with ``..``, or passes through a symbolic link.
    """
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name or "\\" in name or name.startswith("/") or ".." in parts:
        raise UnsafePath("A stored file is named by a path relative to the media root.")
    base = root().resolve()
    path = base.joinpath(*parts)
    if path.resolve() != path:  # a link, even one that stays inside: nothing here makes any
        raise UnsafePath("A stored file is never reached through a symbolic link.")
    return path


def open_file(name: str) -> BinaryIO:
    """Open a stored file for reading.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafePath: see :func:`path_of`.
    """
    return _open_regular(path_of(name))


def store_bytes(data: bytes, *, suffix: str) -> StoredFile:
    """Store some bytes under the name of their content.

    Raises:
        StorageFull: the disk is full, or would be.
    """
    stored = _stored(hashlib.sha256(data), len(data), suffix)
    with _writing(len(data)):
        if not _touched(stored):
            _place(path_of(stored.name), lambda target: target.write(data))
    return stored


def adopt_file(path: Path, *, suffix: str = "") -> StoredFile:
    """Take a finished file into the store; afterwards it is no longer where it was.

    It is renamed where that is possible and copied otherwise. ``suffix`` stands for the file's own.

    Raises:
        FileNotFoundError: there is no such file.
        StorageFull: the disk is full, or would be.
        UnsafePath: it is a symbolic link, or no regular file.
    """
    with _open_regular(path) as source:
        digest = hashlib.file_digest(source, "sha256")
        stored = _stored(digest, source.tell(), suffix or path.suffix.lstrip(".").lower())
        target = path_of(stored.name)
        with _writing(0):
            if _touched(stored):
                path.unlink()
                return stored
            os.fchmod(source.fileno(), FILE_MODE)
            os.fsync(source.fileno())
            _make_folder(target.parent)
            try:
                path.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                _sync_folder(target.parent)
                return stored
        source.seek(0)
        with _writing(stored.size_bytes):
            _place(target, lambda copy: shutil.copyfileobj(source, copy, CHUNK_BYTES))
    path.unlink()
    return stored


def write_file(name: str, data: bytes) -> Path:
    """Write a file that is made from others, such as a thumbnail, under a name of the caller's choice.

    Raises:
        StorageFull: the disk is full, or would be.
        UnsafePath: see :func:`path_of`.
    """
    path = path_of(name)
    with _writing(len(data)):
        _place(path, lambda target: target.write(data))
    return path


def delete(name: str, *, untouched_for: timedelta | None = None) -> bool:
    """Delete a stored file; return whether it was there and, as asked, old enough.

    A file that is adopted again becomes new, and no adoption runs while the age is looked at: who deletes
    only what has been untouched for a while takes nothing away from a row that is about to be written.

    Raises:
        UnsafePath: see :func:`path_of`.
    """
    path = path_of(name)
    with _gate(fcntl.LOCK_EX):
        try:
            if untouched_for and path.stat().st_mtime > time.time() - untouched_for.total_seconds():
                return False
            path.unlink()
        except FileNotFoundError:
            return False
    return True


def walk(area: str) -> Iterator[FoundFile]:
    """Yield every file below a folder of the store, such as ``IMAGES``, in the order of their names."""
    base = path_of(area)
    for folder, folders, files in os.walk(base):
        folders.sort()
        for file in sorted(files):
            path = Path(folder, file)
            with suppress(FileNotFoundError):  # deleted in the meantime
                found = path.lstat()
                name = f"{area}/{path.relative_to(base).as_posix()}"
                yield FoundFile(name, found.st_size, found.st_mtime)


def free_bytes() -> int:
    """Return how many bytes the disk under the media root has left."""
    base = root()
    base.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(base).free


def require_space(size_bytes: int = 0) -> None:
    """Check that so many bytes can be written and the configured reserve stays free.

    Raises:
        StorageFull: they cannot.
    """
    if free_bytes() - size_bytes < get_config().storage.minimum_free_bytes:
        raise StorageFull("The disk is full: nothing more can be stored until space is freed.")


def staging_dir(name: str) -> Path:
    """Return the folder in which one job's child program may leave files, made where it is missing.

    Raises:
        UnsafePath: the name is more than the plain name of a folder.
    """
    if not STAGING_NAME.fullmatch(name) or name.startswith("."):
        raise UnsafePath("A staging folder has a plain name.")
    path = path_of(f"{STAGING}/{name}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def delete_staging_dir(name: str) -> None:
    """Delete a staging folder and what is left in it; what cannot be deleted now is swept later.

    Raises:
        UnsafePath: the name is more than the plain name of a folder.
    """
    shutil.rmtree(staging_dir(name), ignore_errors=True)


def stale_staging(older_than: timedelta) -> list[str]:
    """Return the names below ``STAGING`` in which nothing has changed for so long."""
    cutoff = time.time() - older_than.total_seconds()
    base = path_of(STAGING)
    if not base.is_dir():
        return []
    return sorted(entry.name for entry in base.iterdir() if _last_change(entry) < cutoff)


def sweep_staging(older_than: timedelta) -> int:
    """Delete what dead children left behind; return how many entries there were."""
    stale = stale_staging(older_than)
    for name in stale:
        path = path_of(STAGING) / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(stale)


def _stored(digest: "hashlib._Hash", size_bytes: int, suffix: str) -> StoredFile:
    if not SUFFIX.fullmatch(suffix):
        raise UnsafePath("The ending of a stored file is a few lower-case letters or digits.")
    sha256 = digest.hexdigest()
    return StoredFile(f"{IMAGES}/{sha256[:2]}/{sha256}.{suffix}", sha256, size_bytes)


def _touched(stored: StoredFile) -> bool:
    """Tell whether the store has the file already, and make it new if so: see :func:`delete`."""
    path = path_of(stored.name)
    try:
        if path.stat().st_size != stored.size_bytes:  # damaged by something outside: write it again
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _place(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name in its own folder, then give it its name in one step."""
    _make_folder(path.parent)
    partial = path.parent / f".{uuid.uuid4().hex}.part"
    try:
        with partial.open("xb") as target:
            write(target)
            target.flush()
            os.fchmod(target.fileno(), FILE_MODE)
            os.fsync(target.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def _writing(size_bytes: int) -> Iterator[None]:
    """Check for space, keep deletions out, and give a full disk its name."""
    require_space(size_bytes)
    try:
        with _gate(fcntl.LOCK_SH):
            yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull("The disk is full: the file could not be written.") from error
        raise


@contextmanager
def _gate(kind: int) -> Iterator[None]:
    """Hold the lock of the store: shared by those who add, alone for who deletes."""
    base = root()
    base.mkdir(parents=True, exist_ok=True)
    with (base / ".lock").open("ab") as lock:
        fcntl.flock(lock, kind)
        yield


def _open_regular(path: Path) -> BinaryIO:
    """Open a file that is what it seems: no link, no device, no pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePath("A stored file is never a symbolic link.") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafePath("Only regular files are stored.")
    return os.fdopen(descriptor, "rb")


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each on the disk before its name is relied upon."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _last_change(path: Path) -> float:
    """Return when anything in a folder, or a file itself, last changed."""
    entries = [path]
    if not path.is_symlink():
        for folder, folders, files in os.walk(path):
            entries += [Path(folder, name) for name in (*folders, *files)]
    latest = 0.0
    for entry in entries:
        with suppress(FileNotFoundError):  # deleted in the meantime
            latest = max(latest, entry.lstat().st_mtime)
    return latest
