"""How long to wait after a refusal: what the server says, or else an exponential backoff."""

import random
from datetime import UTC
from email.utils import parsedate_to_datetime

BASE_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 24 * 3600.0
"""A host that asks for more is asked again then, and may say so once more: no header closes one for ever."""

LONGEST_HEADER = 64
"""Characters. The longest date of HTTP has 33."""


def retry_after_seconds(value: str, now: float) -> float | None:
    """Return how many seconds from now a header ``Retry-After`` asks to wait (RFC 9110, 10.2.3).

    It holds whole seconds or a date; anything else is None, a date in the past 0. More than a day counts as one. ``now`` is a
    POSIX time.
    """
    value = value.strip()[:LONGEST_HEADER]
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_SECONDS)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)  # a date of HTTP is always in GMT, even where it forgets to say so
    return min(max(0.0, at.timestamp() - now), LONGEST_RETRY_SECONDS)


def full_jitter(failures: int) -> float:
    """Return seconds to wait after so many failures in a row: evenly between 0 and a bound that doubles.

    Many clients that failed together do not come back together
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    bound = min(LONGEST_BACKOFF_SECONDS, BASE_SECONDS * 2 ** min(failures, 16))
    return random.uniform(0, bound)  # noqa: S311 - spreads load, guards nothing
