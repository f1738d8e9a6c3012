"""Is there room? Asked before anything is begun that writes much to one of the managed roots."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from imagehub.config import get_config
from imagehub.roots import every_root


def nearest_folder(path: Path) -> Path:
    """Return the folder itself, or the one above it in which it would be made."""
    while not path.is_dir():
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Return how many bytes are left where a folder is, or would be made.

    Raises:
        OSError: that cannot be looked at.
    """
    return shutil.disk_usage(nearest_folder(path)).free


def lack_of_room(names: Iterable[str], *, size_bytes: int = 0) -> str:
    """Return why nothing is to be written to one of these roots now, in a sentence for everybody, or nothing.

    So many bytes have to fit, and ``storage.minimum_free_bytes`` have to stay free.
    """
    least = get_config().storage.minimum_free_bytes
    for name in names:
        try:
            is_full = free_bytes(every_root()[name]) - size_bytes < least
        except OSError:
            return f"The disk of the {name} files cannot be looked at."
        if is_full:
            return f"The disk of the {name} files is full: nothing is begun until space is freed."
    return ""
