"""How a trainer says that it ends, and with which exit status. Needs no torch."""

from collections.abc import Mapping
from typing import Any

from imagehub.jobs.protocol import ExitCode
from training.pipelines.failures import FailureCode

EXIT_CODES = {
    FailureCode.BAD_REQUEST: ExitCode.BAD_REQUEST,
    FailureCode.UNKNOWN_SCHEDULER: ExitCode.BAD_REQUEST,
    FailureCode.CHECKPOINT_MISMATCH: ExitCode.BAD_REQUEST,
    FailureCode.DATASET_INVALID: ExitCode.BAD_DATA,
    FailureCode.FOLDER_BUSY: ExitCode.BUSY,
    FailureCode.MODEL_MISSING: ExitCode.MODEL_MISSING,
    FailureCode.MODEL_INVALID: ExitCode.MODEL_MISSING,
    FailureCode.DISK_FULL: ExitCode.STORAGE,
    FailureCode.STORAGE_ERROR: ExitCode.STORAGE,
    FailureCode.NOT_A_NUMBER: ExitCode.NOT_A_NUMBER,
    FailureCode.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
}


def status_after(event: Mapping[str, Any]) -> ExitCode | None:
    """Return the exit status of a trainer whose last word an event is; None where it is no last word.

    A launcher that starts several processes ends with a status of its own, whatever theirs was, but passes their words on.
    """
    match event.get("event"):
        case "finished":
            return ExitCode.FINISHED
        case "stopped":
            return ExitCode.STOPPED
        case "error":
            known = {str(code): status for code, status in EXIT_CODES.items()}
            return known.get(str(event.get("code")), ExitCode.BUG)
    return None
