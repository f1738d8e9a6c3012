"""Files on a disk of this machine, below the media root."""

import errno
import fcntl
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import repeat
from pathlib import Path
from typing import BinaryIO

from imagehub.storage.media_folder import (
    gate,
    naming_a_full_disk,
    open_regular,
    path_of,
    paths_of,
    require_space,
    root,
)
from imagehub.storage.names import FoundFile, StorageFull, StoredFile, UnsafePath

FILE_MODE = 0o644
CHUNK_BYTES = 1 << 20
PART_BYTES = 256 * 1024
AT_ONCE = 8
"""Files that are deleted at the same time: each may wait milliseconds for the journal of the file system."""


class Disk:
    """The store on a local disk. See :mod:`imagehub.storage` for what each of these promises."""

    is_local = True

    def problem(self) -> str:
        try:
            require_space()
        except StorageFull as error:
            return str(error)
        return "" if os.access(root(), os.W_OK) else "The media folder cannot be written."

    def location_of(self, name: str) -> str:
        return str(root() / name)

    def exists(self, name: str) -> bool:
        return path_of(name).is_file()

    def missing(self, names: set[str]) -> set[str]:
        return {name for name in names if not self.exists(name)}

    def size(self, name: str) -> int:
        return path_of(name).stat().st_size

    def open(self, name: str) -> BinaryIO:
        return open_regular(path_of(name))

    def read_part(self, name: str, wanted: range) -> Iterator[bytes]:
        return _parts(self.open(name), wanted)

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        path = path_of(name)
        open_regular(path).close()
        yield path

    def signed_url(self, name: str, *, content_type: str, disposition: str, cache_control: str) -> str | None:
        return None

    def store(self, stored: StoredFile, data: bytes) -> None:
        with _writing(len(data)):
            if not _touched(stored):
                _place(path_of(stored.name), lambda target: target.write(data))

    def adopt(self, stored: StoredFile, path: Path, source: BinaryIO) -> None:
        target = path_of(stored.name)
        with _writing(0):
            if _touched(stored):
                path.unlink()
                return
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
                return
        source.seek(0)
        with _writing(stored.size_bytes):
            _place(target, lambda copy: shutil.copyfileobj(source, copy, CHUNK_BYTES))
        path.unlink()

    def write(self, name: str, data: bytes) -> None:
        path = path_of(name)
        with _writing(len(data)):
            _place(path, lambda target: target.write(data))

    def delete(self, name: str, *, untouched_for: timedelta | None) -> bool:
        return bool(self.delete_all([name], untouched_for=untouched_for))

    def delete_all(self, names: Collection[str], *, untouched_for: timedelta | None) -> set[str]:
        paths = paths_of(names)
        before = time.time() - untouched_for.total_seconds() if untouched_for else None
        with gate(fcntl.LOCK_EX):
            old = [
                name for name, path in paths.items() if _may_go(path, before)
            ]  # all of them, before any goes
            if len(old) <= AT_ONCE:
                return _unlink(old, paths)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                shares = [old[start::AT_ONCE] for start in range(AT_ONCE)]
                return set().union(*pool.map(_unlink, shares, repeat(paths)))

    def walk(self, area: str) -> Iterator[FoundFile]:
        base = path_of(area)
        for folder, folders, files in os.walk(base):
            folders.sort()
            for file in sorted(files):
                path = Path(folder, file)
                with suppress(FileNotFoundError):  # deleted in the meantime
                    found = path.lstat()
                    name = f"{area}/{path.relative_to(base).as_posix()}"
                    yield FoundFile(name, found.st_size, found.st_mtime)


def _may_go(path: str, before: float | None) -> bool:
    """Tell whether there is such a file, which was not touched after a moment.

    Raises:
        UnsafePath: it is a symbolic link.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(found.st_mode):
        raise UnsafePath("A stored file is never a symbolic link.")
    return before is None or found.st_mtime <= before


def _unlink(names: Sequence[str], paths: Mapping[str, str]) -> set[str]:
    """Delete files; return the names of those that were still there."""
    gone = set()
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(paths[name])  # noqa: PTH108 - a path object for each of a million takes its time
            gone.add(name)
    return gone


def _touched(stored: StoredFile) -> bool:
    """Tell whether the store has the file already, and make it new if so, so that no deletion takes it."""
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
    with naming_a_full_disk(), gate(fcntl.LOCK_SH):
        yield


def _parts(file: BinaryIO, wanted: range) -> Iterator[bytes]:
    with file:
        file.seek(wanted.start)
        left = len(wanted)
        while left > 0 and (part := file.read(min(PART_BYTES, left))):
            left -= len(part)
            yield part


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
