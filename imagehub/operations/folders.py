"""Folders that are measured and deleted: never what links in them lead to."""

import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

from django.db.models import QuerySet

logger = logging.getLogger(__name__)

DOOMED = ".doomed-"
"""So the name of a folder begins that waits to be deleted, before what it was called, or nothing in particular."""

FOLDERS_AT_ONCE = 500

MOST_NAMED = 20
"""Of so many folders without a row the log tells the names."""


def lies_in(path: Path, root: Path) -> bool:
    """Tell whether a path really lies below a root, and nothing on the way there is a link. It need not be there."""
    if not path.is_relative_to(root) or ".." in path.parts:
        return False
    inner = path.relative_to(root)
    try:
        return inner != Path() and path.resolve() == root.resolve() / inner
    except (OSError, RuntimeError):  # a link that leads to itself
        return False


def bytes_below(path: Path) -> int:
    """Return the bytes that a file or a folder takes: not what links lead to, or what lies elsewhere as well by a hard link."""
    if path.is_symlink():
        return 0
    found = 0
    for file in chain([path], files_below(path)):
        with suppress(
            OSError
        ):  # somebody deletes some of them, or they cannot be read: deleting them will say so
            status = file.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                found += status.st_size
    return found


def files_below(path: Path) -> Iterator[Path]:
    """Yield what is no folder below a folder, without following links. What cannot be read or vanishes is left out."""
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def is_empty(folder: Path) -> bool:
    """Tell whether nothing can be seen in a folder: it is not there, cannot be read, or is the place where a disk should be."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def delete_folder(path: Path) -> None:
    """Delete a folder with all that is in it; links in it are deleted and not followed. Somebody else may be at it as well.

    Raises:
        OSError: it cannot all be deleted.
    """
    while os.path.lexists(path):
        with suppress(FileNotFoundError):  # somebody else was faster: so there is less left with each turn
            shutil.rmtree(path)


def without_rows(parent: Path, rows: QuerySet[Any], *, cutoff: datetime) -> Iterator[Path]:
    """Yield the folders in a folder that are named by the key of a row, of which there is none, and that nobody has touched since.

    Folders are made after their rows. One that is named otherwise is not ours, and links are none.
    """
    try:
        entries = os.scandir(parent)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        while some := list(islice(entries, FOLDERS_AT_ONCE)):
            named = {key: Path(entry.path) for entry in some if (key := _key(entry, cutoff.timestamp()))}
            there = set(rows.filter(pk__in=named).values_list("pk", flat=True))
            yield from (path for key, path in named.items() if key not in there)


def count_strays(folders: Iterable[Path], whose: str, *, on_progress: Callable[[], None]) -> int:
    """Count folders that belong to no row, and name the first of them in the log.

    They are never deleted: it may be the database that is the wrong one, or an old one.

    Args:
        folders: they, named by a key and nothing else.
        whose: what they have no row of, for a sentence.
        on_progress: called after each.
    """
    count = 0
    for count, folder in enumerate(folders, 1):
        if count <= MOST_NAMED:
            logger.warning("The folder %s belongs to no %s, and is left alone", folder.name, whose)
        on_progress()
    return count


def _key(entry: os.DirEntry[str], before: float) -> uuid.UUID | None:
    """Return by which key an old folder is named."""
    try:
        key = uuid.UUID(entry.name.removeprefix(DOOMED))
        is_old = entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < before
    except (ValueError, FileNotFoundError):  # not ours, or gone in the meantime
        return None
    return key if is_old else None
