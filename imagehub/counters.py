"""Counters that all processes share, at hardly any cost: a process counts for itself, and adds to the shared cache now and then.

They live as long as the cache does. Whoever reads them must expect them to begin at zero again, as Prometheus does.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable

from django.core.cache import cache

from imagehub import failover_cache

FLUSH_SECONDS = 5.0
"""How far behind the shared counters may be. What a process has not added yet is lost when it is killed."""

_lock = threading.Lock()
_own: Counter[str] = Counter()
"""What this process has counted and not added yet."""
_flushed_at = time.monotonic()


def add(amounts: dict[str, int]) -> None:
    """Count. One call in five seconds asks the cache, once for each counter that has changed."""
    with _lock:
        _own.update(amounts)
        is_due = time.monotonic() - _flushed_at >= FLUSH_SECONDS
    if is_due:
        flush()


def flush() -> None:
    """Add what this process has counted to the shared counters. While the shared cache is away, it goes on counting for itself."""
    global _flushed_at
    with _lock:
        taken = Counter(_own)
        _own.clear()
        _flushed_at = time.monotonic()
    while taken:
        name, amount = taken.popitem()
        _add(_key(name), amount)
        if failover_cache.is_degraded():  # it went to the cache that stands in, where nobody else sees it
            taken[name] = amount
            break
    if taken:
        with _lock:
            _own.update(taken)


def totals(names: Iterable[str]) -> dict[str, int]:
    """Return where counters stand, by name: what all processes have counted, or this one alone while the shared cache is away.

    What this process could not add yet is in no sum of all: another process would not know of it, and whoever asked
    first one and then the other would see a counter run backwards.
    """
    flush()
    names = list(names)
    shared = cache.get_many([_key(name) for name in names])
    if not failover_cache.is_degraded():
        return {name: shared.get(_key(name), 0) for name in names}
    with _lock:
        return {name: _own[name] for name in names}


def forget() -> None:
    """Forget what this process has counted, as if it had just begun."""
    global _flushed_at
    with _lock:
        _own.clear()
        _flushed_at = time.monotonic()


def _add(key: str, amount: int) -> None:
    try:
        cache.incr(key, amount)
    except ValueError:  # it is new, or the cache was emptied
        if not cache.add(key, amount, timeout=None):  # another process was faster
            cache.incr(key, amount)


def _key(name: str) -> str:
    return f"counter:{name}"
