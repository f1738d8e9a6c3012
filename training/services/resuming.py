"""What a run can go on from. Nothing here is to be called with a transaction open: checkpoints are gigabytes."""

from training.models import TrainingRun
from training.services.run_folders import folder_of
from training.trainer.checkpoint_files import CheckpointDamaged, folder_name, steps_in, verify


def verified_step(run: TrainingRun) -> int | None:
    """Return the step of the latest checkpoint of a run whose files are as they were written; None: there is none.

    Reads all bytes of that checkpoint, and of later ones that are damaged.
    """
    folder = folder_of(run).checkpoints
    return next((step for step in reversed(steps_in(folder)) if is_sound(run, step)), None)


def is_there(run: TrainingRun, step: int) -> bool:
    """Tell whether there is a checkpoint of a step, without reading it."""
    return (folder_of(run).checkpoints / folder_name(step)).is_dir()


def is_sound(run: TrainingRun, step: int) -> bool:
    """Tell whether the checkpoint of a step is there, with the files that were written."""
    try:
        verify(folder_of(run).checkpoints / folder_name(step))
    except CheckpointDamaged:
        return False
    return True
