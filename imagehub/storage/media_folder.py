"""The media root: a folder of this machine that exists wherever files are stored, because children stage there."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from imagehub import room
from imagehub.config import get_config
from imagehub.roots import media_root
from imagehub.storage.names import StorageFull, UnsafePath, safe_parts


def root() -> Path:
    """Return the media root in force now."""
    return media_root()


def path_of(name: str) -> Path:
    """Return the absolute path that a name has below the media root, where nothing need exist.

    Raises:
        UnsafePath: the name is absolute, climbs with ``..``, or passes through a symbolic link.
    """
    path = os.path.join(os.path.realpath(root()), *safe_parts(name))  # noqa: PTH118 - asked for several times a picture
    if os.path.realpath(path) != path:  # a link, even one that stays inside: nothing here makes any
        raise UnsafePath("A stored file is never reached through a symbolic link.")
    return Path(path)


def paths_of(names: Iterable[str]) -> dict[str, str]:
    """Return by their names the paths of many, as :func:`path_of`, but each folder is looked at once and no file at all.

    Whether a file is a symbolic link itself is left to whoever looks at it.

    Raises:
        UnsafePath: a name is absolute, climbs with ``..``, or its folder passes through a symbolic link.
    """
    folders = {(): os.path.realpath(root())}
    paths = {}
    for name in names:
        *above, file = safe_parts(name)
        paths[name] = f"{_vetted_folder(tuple(above), folders)}/{file}"
    return paths


def _vetted_folder(parts: tuple[str, ...], known: dict[tuple[str, ...], str]) -> str:
    """Return the path of a folder below one that is known to be real, and remember it. It need not be there.

    Raises:
        UnsafePath: it is a symbolic link, or below one.
    """
    if (folder := known.get(parts)) is None:
        folder = f"{_vetted_folder(parts[:-1], known)}/{parts[-1]}"
        if os.path.islink(folder):  # noqa: PTH114 - thousands a second
            raise UnsafePath("A stored file is never reached through a symbolic link.")
        known[parts] = folder
    return folder


def free_bytes() -> int:
    """Return how many bytes the disk under the media root has left."""
    base = root()
    base.mkdir(parents=True, exist_ok=True)
    return room.free_bytes(base)


def require_space(size_bytes: int = 0) -> None:
    """Check that so many bytes can be written and the configured reserve stays free.

    Raises:
        StorageFull: they cannot.
    """
    if free_bytes() - size_bytes < get_config().storage.minimum_free_bytes:
        raise StorageFull("The disk is full: nothing more can be stored until space is freed.")


@contextmanager
def gate(kind: int) -> Iterator[None]:
    """Hold the lock of the store: shared by those who add, alone for who deletes."""
    base = root()
    base.mkdir(parents=True, exist_ok=True)
    with (base / ".lock").open("ab") as lock:
        fcntl.flock(lock, kind)
        yield


def open_regular(path: Path) -> BinaryIO:
    """Open a file that is what it seems: no link, no device, no pipe.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafePath: it is something else.
    """
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


@contextmanager
def naming_a_full_disk() -> Iterator[None]:
    """Let a disk that fills up in the block be told from other failures.

    Raises:
        StorageFull: it did.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull("The disk is full: the file could not be written.") from error
        raise
