"""Files that are on disk when it is said that they are, and what to say when they cannot be."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.pipelines.failures import FailureCode, RequestFailed, is_disk_full


def sync(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming_failures(what: str) -> Iterator[None]:
    """Turn what libraries say of a file that cannot be written into words for the owner of the run.

    Args:
        what: is written, such as “the checkpoint”.

    Raises:
        RequestFailed: the disk is full (``disk_full``) or does not take it (``storage_error``).
    """
    try:
        yield
    except RequestFailed:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise RequestFailed(
                FailureCode.DISK_FULL, f"The disk is full; {what} could not be kept."
            ) from error
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise RequestFailed(
                FailureCode.STORAGE_ERROR, f"{what[:1].upper()}{what[1:]} could not be written: {reason}."
            ) from error
        raise
