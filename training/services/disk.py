"""How much disk the files of a run take."""

import os
from pathlib import Path

from imagehub.operations.folders import bytes_below
from training.models import TrainingRun
from training.services.run_folders import folder_of


def disk_of(run: TrainingRun) -> dict[str, int]:
    """Return the bytes of each part of the folder of a run. Pictures that are only linked there take none."""
    root = folder_of(run).root
    if not root.is_dir() or root.is_symlink():
        return {}
    found = {entry.name: bytes_below(Path(entry)) for entry in os.scandir(root) if not entry.is_symlink()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))
