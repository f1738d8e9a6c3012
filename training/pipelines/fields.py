"""Reading the fields of a request to a child program, each with an error that names it. Needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.pipelines.failures import FailureCode, RequestFailed


def wrong(field: str, expected: str) -> RequestFailed:
    """Return the error of a field that is not what it should be."""
    return RequestFailed(FailureCode.BAD_REQUEST, f"“{field}” must be {expected}.")


def text(message: Mapping[str, Any], field: str, default: str | None = None) -> str:
    """Return a text that a tokenizer and a file can hold.

    Raises:
        RequestFailed: it is none.
    """
    value = message.get(field, default)
    if not isinstance(value, str):
        raise wrong(field, "a text")
    try:  # JSON can spell half a surrogate pair, which neither a tokenizer nor a file can hold
        value.encode()
    except UnicodeEncodeError:
        raise wrong(field, "valid Unicode") from None
    return value


def whole(message: Mapping[str, Any], field: str, low: int, high: int) -> int:
    """Return a whole number within bounds.

    Raises:
        RequestFailed: it is none, or outside.
    """
    value = message.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(field, f"a whole number from {low} to {high}")
    return value


def number(message: Mapping[str, Any], field: str, low: float, high: float) -> float:
    """Return a finite number within bounds.

    Raises:
        RequestFailed: it is none, or outside.
    """
    value: Any = message.get(field)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # NaN lies in no range
        raise wrong(field, f"a number from {low:g} to {high:g}")
    return float(value)


def flag(message: Mapping[str, Any], field: str) -> bool:
    """Return whether something is asked for; what is left out is not.

    Raises:
        RequestFailed: it is neither true nor false.
    """
    value = message.get(field, False)
    if not isinstance(value, bool):
        raise wrong(field, "true or false")
    return value


def absolute_path(message: Mapping[str, Any], field: str) -> Path:
    """Return the absolute path of a file.

    Raises:
        RequestFailed: it is none.
    """
    value = text(message, field)
    if "\0" in value or not Path(value).is_absolute() or not Path(value).name:
        raise wrong(field, "an absolute path")
    return Path(value)
