"""How work on a model can end badly, in words for its owner and in codes for programs. Needs no torch."""

import errno
from enum import StrEnum

FULL = {errno.ENOSPC, errno.EDQUOT}
DISK_FULL_TEXTS = ("os error 28", "os error 122", "no space left on device")
"""What libraries say that write files by themselves: safetensors is written in Rust, torch in C++."""

OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says on CPU and MPS, where running out of memory is a plain RuntimeError."""


class FailureCode(StrEnum):
    BAD_REQUEST = "bad_request"
    UNKNOWN_SCHEDULER = "unknown_scheduler"
    MODEL_MISSING = "model_missing"
    MODEL_INVALID = "model_invalid"
    ADAPTER_MISSING = "adapter_missing"
    ADAPTER_INCOMPATIBLE = "adapter_incompatible"
    INIT_IMAGE_INVALID = "init_image_invalid"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_A_NUMBER = "not_a_number"
    DISK_FULL = "disk_full"
    STORAGE_ERROR = "storage_error"
    CHECKPOINT_MISMATCH = "checkpoint_mismatch"
    DATASET_INVALID = "dataset_invalid"
    FOLDER_BUSY = "folder_busy"
    ENGINE_ERROR = "engine_error"
    TRAINER_ERROR = "trainer_error"


class RequestFailed(Exception):
    """One request cannot be carried out; the program goes on with the next, if it has more than one.

    ``detail`` is a sentence for the owner of the job: it names no absolute path and no prompt.
    """

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, whatever device ran out of it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether an error means that a disk is full, or that of a cause of it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(text in str(error).lower() for text in DISK_FULL_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False
