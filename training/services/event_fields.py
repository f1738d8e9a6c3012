"""Reading what stands in the events of a trainer: whatever it says, only what a row can hold comes of it."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from imagehub.database import UNSTORABLE
from imagehub.redaction import redact_paths

Event = Mapping[str, Any]

LONGEST_SENTENCE = 300

LARGEST = 1e300
"""What no number of a training reaches, and a column of floats still holds."""

_REQUIRED: Any = object()


class Malformed(Exception):
    """An event does not have what events of its name have."""


def is_number(value: Any) -> bool:
    """Tell whether a column of floats can hold it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def is_whole(value: Any, *, below: int = 2**31) -> bool:
    """Tell whether it is a whole number, not negative, that a column can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def number(event: Event, name: str, *, default: Any = _REQUIRED) -> Any:
    """Return a number of an event, or ``default`` where it has none.

    Raises:
        Malformed: it has none, and there is no ``default``.
    """
    value = event.get(name)
    if is_number(value):
        return value
    if default is _REQUIRED:
        raise Malformed(name)
    return default


def whole(event: Event, name: str, *, below: int = 2**31) -> int:
    """Return a whole number of an event.

    Raises:
        Malformed: it has none, or a negative one, or one that no column holds.
    """
    value = event.get(name)
    if not is_whole(value, below=below):
        raise Malformed(name)
    return int(value)  # type: ignore[arg-type]


def text(event: Event, name: str) -> str:
    """Return a text of an event, without what no database holds.

    Raises:
        Malformed: it has none.
    """
    value = event.get(name)
    if not isinstance(value, str):
        raise Malformed(name)
    return UNSTORABLE.sub("", value)


def mapping(event: Event, name: str) -> Mapping[str, Any]:
    """Return a mapping of an event; empty where it has none."""
    value = event.get(name)
    return value if isinstance(value, Mapping) else {}


def storable(value: Any, length: int) -> str:
    """Return whatever it is as a text that a database holds, of at most so many characters."""
    return UNSTORABLE.sub("", str(value))[:length]


def plain(value: Any) -> Any:
    """Return a value as JSON in a row may have it: a number, a truth value, null, or a short text."""
    return value if value is None or isinstance(value, bool) or is_number(value) else storable(value, 100)


def sentence(event: Event) -> str:
    """Return what is said of a failure or a warning, fit to be shown to the owner."""
    detail = ""
    with suppress(Malformed):
        detail = text(event, "detail")
    return redact_paths(detail)[:LONGEST_SENTENCE]
