"""Folders that are measured and deleted: never what links in them lead to."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path


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
    for file in (path, *path.rglob("*")):
        try:
            status = file.lstat()
        except FileNotFoundError:  # somebody works there, and deletes some of them
            continue
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            found += status.st_size
    return found


def delete_folder(path: Path) -> None:
    """Delete a folder with all that is in it; links in it are deleted and not followed. Somebody else may be at it as well.

    Raises:
        OSError: it cannot all be deleted.
    """
    while os.path.lexists(path):
        with suppress(FileNotFoundError):  # somebody else was faster: so there is less left with each turn
            shutil.rmtree(path)
