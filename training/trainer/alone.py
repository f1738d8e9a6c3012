"""One trainer at a time in the folder of a run: two would delete each other's checkpoints, and mix what they measure.

A worker that was given up for dead may leave a trainer that lives on, and somebody may start one by hand. The lock belongs to the
process and ends with it, however that ends. Who comes too late waits a little, for the other one may be about to end.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from training.pipelines.failures import FailureCode, RequestFailed
from training.trainer.assignment import Assignment, RunFolder

WAIT_SECONDS = 10.0
TURN_SECONDS = 0.2


@contextmanager
def alone_in(folder: RunFolder, *, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Keep other trainers out of a folder while the block lasts.

    Raises:
        RequestFailed: another one is at work there (``folder_busy``), or the folder cannot be locked (``storage_error``).
    """
    try:
        file = folder.lock.open("a")
    except OSError as error:
        raise RequestFailed(FailureCode.STORAGE_ERROR, "The folder of the run cannot be written.") from error
    with file:
        until = time.monotonic() + WAIT_SECONDS
        while not _lock(file.fileno()):
            if time.monotonic() >= until or should_stop():
                raise RequestFailed(
                    FailureCode.FOLDER_BUSY, "Another process trains in the folder of this run."
                )
            time.sleep(TURN_SECONDS)
        yield


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RequestFailed(FailureCode.STORAGE_ERROR, "The folder of the run cannot be locked.") from error
    return True


def check_still_ours(folder: RunFolder, token: str) -> None:
    """Make sure, before anything is saved, that nobody else was given the run.

    A lock may not reach as far as a folder that machines share; whoever was given the run last has written his token there.

    Raises:
        RequestFailed: somebody else was given the run meanwhile (``folder_busy``).
    """
    if Assignment.read(folder).token != token:
        raise RequestFailed(FailureCode.FOLDER_BUSY, "The run was given to another process meanwhile.")
