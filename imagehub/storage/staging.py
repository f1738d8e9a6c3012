"""Staging: folders in which one job's child program may leave files. Always on this machine."""

import os
import re
import shutil
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from imagehub.storage.media_folder import path_of
from imagehub.storage.names import UnsafePath

STAGING = "staging"
ABANDONED_AFTER = timedelta(days=2)
"""Longer than any job may run that still writes here, but for training, which has folders of its own."""

STAGING_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def staging_dir(name: str) -> Path:
    """Return the folder in which one job's child program may leave files, made where it is missing.

    Raises:
        UnsafePath: the name is more than the plain name of a folder.
    """
    path = _staging_path(name)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def delete_staging_dir(name: str) -> None:
    """Delete a staging folder and what is left in it; what cannot be deleted now is swept later.

    Raises:
        UnsafePath: the name is more than the plain name of a folder.
    """
    shutil.rmtree(_staging_path(name), ignore_errors=True)


def _staging_path(name: str) -> Path:
    if not STAGING_NAME.fullmatch(name) or name.startswith("."):
        raise UnsafePath("A staging folder has a plain name.")
    return path_of(f"{STAGING}/{name}")


def stale_staging(older_than: timedelta = ABANDONED_AFTER) -> list[str]:
    """Return the names below ``STAGING`` in which nothing has changed for so long."""
    cutoff = time.time() - older_than.total_seconds()
    base = path_of(STAGING)
    if not base.is_dir():
        return []
    return sorted(entry.name for entry in base.iterdir() if _last_change(entry) < cutoff)


def sweep_staging(older_than: timedelta = ABANDONED_AFTER) -> int:
    """Delete what dead children left behind; return how many entries there were."""
    stale = stale_staging(older_than)
    for name in stale:
        path = path_of(STAGING) / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(stale)


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
