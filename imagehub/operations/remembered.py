"""What many ask for every few seconds: one of them finds it out, and the others get what was found last."""

from collections.abc import Callable
from typing import TypeVar

from django.core.cache import cache

Found = TypeVar("Found")

KEPT_SECONDS = 300
"""How long others are given what was found last while somebody finds it out anew, which takes long when a bucket hangs."""

LONGEST_SECONDS = 30
"""After so long somebody else tries to find it out as well: who did it may be dead."""


def lately(key: str, find: Callable[[], Found], *, seconds: int) -> Found:
    """Return what was found at most so many seconds ago; if nobody has, find it out.

    While one finds it out, the others get what is older, or find it out themselves if there is none.

    Raises:
        Exception: what ``find`` raises. Nothing is remembered of it.
    """
    if not cache.add(f"{key}:turn", 1, LONGEST_SECONDS):
        found: tuple[Found] | None = cache.get(key)
        if found is not None:
            return found[0]
    return anew(key, find, seconds=seconds)


def anew(key: str, find: Callable[[], Found], *, seconds: int) -> Found:
    """Find it out, whatever is known, and remember it for those who ask :func:`lately`."""
    try:
        found = find()
    except Exception:
        cache.delete(f"{key}:turn")
        raise
    cache.set(key, (found,), KEPT_SECONDS)
    cache.set(f"{key}:turn", 1, seconds)
    return found
