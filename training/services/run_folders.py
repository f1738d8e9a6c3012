"""Where the files of runs are: below the training root, which the web and the training machines share."""

import logging
import shutil
from pathlib import Path

from imagehub import roots
from imagehub.database import UNSTORABLE
from training.models import Checkpoint, TrainingRun
from training.trainer.assignment import RunFolder

logger = logging.getLogger(__name__)

CACHE = "cache"


def folder_of(run: TrainingRun) -> RunFolder:
    """Return the folder of a run. It need not be there."""
    return RunFolder(roots.training_root() / run.folder)


def cache_root() -> Path:
    """Return the folder of encoded pictures and captions, which all runs share."""
    return roots.training_root() / CACHE


def checkpoint_path(checkpoint: Checkpoint) -> Path:
    """Return the folder of a checkpoint."""
    return folder_of(checkpoint.run).root / checkpoint.folder


def delete_pictures(run: TrainingRun) -> None:
    """Delete the pictures in the folder of a run: links or copies of what the store has. They may be gone already."""
    try:
        shutil.rmtree(folder_of(run).images)
    except FileNotFoundError:
        pass
    except OSError as error:  # its text would name the path
        logger.error("The pictures of run %s cannot be deleted: %s", run.pk, error.strerror)


def file_in(folder: RunFolder, name: object) -> Path | None:
    """Return the path of a file that a child program has named, or None where it leads out of the folder, or nowhere."""
    if not isinstance(name, str) or not name or len(name) > 1000 or UNSTORABLE.search(name):
        return None
    root = folder.root.resolve()
    path = (root / name).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None
