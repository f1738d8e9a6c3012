"""How much disk the files of a run take."""

import os
import stat
from pathlib import Path

from training.models import TrainingRun
from training.services.run_folders import folder_of


def disk_of(run: TrainingRun) -> dict[str, int]:
    """Return the bytes of each part of the folder of a run. Pictures that are only linked there take none."""
    root = folder_of(run).root
    if not root.is_dir() or root.is_symlink():
        return {}
    found = {entry.name: bytes_below(Path(entry)) for entry in os.scandir(root) if not entry.is_symlink()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def bytes_below(path: Path) -> int:
    """Return the bytes that a file or a folder takes: not what links lead to, or what lies elsewhere as well by a hard link."""
    if path.is_symlink():
        return 0
    found = 0
    for file in (path, *path.rglob("*")):
        try:
            status = file.lstat()
        except FileNotFoundError:  # a trainer that runs deletes some of them
            continue
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            found += status.st_size
    return found
