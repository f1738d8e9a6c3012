"""How one request can end badly, in words for its owner and in codes for programs."""

import traceback
from enum import StrEnum

OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says on CPU and MPS, where running out of memory is a plain RuntimeError."""


class FailureCode(StrEnum):
    BAD_REQUEST = "bad_request"
    UNKNOWN_SCHEDULER = "unknown_scheduler"
    MODEL_MISSING = "model_missing"
    MODEL_INVALID = "model_invalid"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_A_NUMBER = "not_a_number"
    DISK_FULL = "disk_full"
    STORAGE_ERROR = "storage_error"
    ENGINE_ERROR = "engine_error"


class RequestFailed(Exception):
    """One request cannot be carried out; the engine goes on with the next.

    ``detail`` is a sentence for the owner of the job: it names no absolute path and no prompt.
    """

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class RequestCancelled(Exception):
    """The request was cancelled before its picture was decoded."""


class EngineStopped(BaseException):
    """The engine was told to end. Not an Exception, so that no library swallows it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, whatever device ran out of it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def as_failure(error: Exception) -> RequestFailed:
    """Return what to tell the owner about an error; unexpected ones are shown only by their type."""
    if isinstance(error, RequestFailed):
        return error
    if is_out_of_memory(error):
        return RequestFailed(
            FailureCode.OUT_OF_MEMORY,
            "The picture does not fit into memory; try a smaller size or a smaller model.",
        )
    return RequestFailed(
        FailureCode.ENGINE_ERROR, f"The engine met an unexpected error ({type(error).__name__})."
    )


def full_text(error: BaseException) -> str:
    """Return the whole traceback of an error, for staff."""
    return "".join(traceback.format_exception(error))
