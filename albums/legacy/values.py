"""Reading what stands in the columns of the system before, where SQLite keeps whatever it was given."""

import json
import math
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from imagehub.database import UNSTORABLE

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


def text(value: Any) -> str:
    """Return a value as text that every database can store."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))


def flag(value: Any) -> bool | None:
    """Return what a flag says; None when it says nothing that can be understood."""
    word = text(value).strip().lower()
    if value is None or word not in _TRUE | _FALSE:
        return None
    return word in _TRUE


def whole_number(value: Any, *, least: int, most: int) -> int | None:
    """Return a whole number in a range, or None."""
    if isinstance(value, int):
        return value if least <= value <= most else None
    number = real_number(value, least=least, most=most)
    return int(number) if number is not None and number == int(number) else None


def real_number(value: Any, *, least: float, most: float) -> float | None:
    """Return a finite number in a range, or None."""
    try:
        number = float(text(value))
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and least <= number <= most else None


def moment(value: Any) -> datetime | None:
    """Return a time; one without a zone is in UTC, as the system before wrote it. None when it is no time."""
    try:
        time = datetime.fromisoformat(text(value).strip())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parsed(value: Any) -> Any:
    """Return what a column of JSON holds; None when it is empty.

    Raises:
        ValueError: it is no JSON.
    """
    written = text(value).strip()
    try:
        return json.loads(written) if written else None
    except RecursionError as error:
        raise ValueError("It is nested too deeply.") from error


def adapters(value: Any) -> list[tuple[str, float]]:
    """Return the adapters of a column as names and weights. Where their files lay stays behind.

    Raises:
        ValueError: it holds no such list.
    """
    listed = parsed(value) or []
    listed = [listed] if isinstance(listed, dict) else listed
    if not isinstance(listed, list) or not all(isinstance(item, dict | str) for item in listed):
        raise ValueError("It is no list of adapters.")
    found = []
    for item in listed:
        entry = {"path": item} if isinstance(item, str) else item
        path = text(entry.get("path") or entry.get("name") or entry.get("filename")).replace("\\", "/")
        weight = real_number(entry.get("weight", 1.0), least=-1000, most=1000)
        if name := PurePosixPath(path).stem.strip():
            found.append((name, 1.0 if weight is None else weight))
    return found
