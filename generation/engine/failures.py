"""How one request of the engine can end, apart from a picture."""

import traceback

from training.pipelines.failures import FailureCode, RequestFailed, is_out_of_memory


class RequestCancelled(Exception):
    """The request was cancelled before its picture was decoded."""


class EngineStopped(BaseException):
    """The engine was told to end. Not an Exception, so that no library swallows it."""


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
