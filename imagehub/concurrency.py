"""How many of something may happen at once. For jobs, see ``imagehub.jobs.capacity``."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.cache import caches

from imagehub.errors import TooMany

RETRY_SECONDS = 10
"""What refused callers are told to wait. Nobody knows when one of the others will be done."""

SURELY_OURS_SECONDS = 1.0
"""A slot this near its end is not touched any more: it may be somebody else's by the time we release it."""


class ConcurrencyLimit(TooMany):
    code = "concurrency_limit"
    title = "Too many at once"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} may be active at once. Try again when one of them has ended.",
            limit=limit,
            retry_after=RETRY_SECONDS,
        )


@contextmanager
def hold_slot(group: str, limit: int, seconds: int) -> Iterator[None]:
    """Hold one of ``limit`` slots while the block lasts; a limit of zero or less is none.

    Args:
        group: what is counted: the name of a kind of work, or of one user's.
        limit: how many may hold a slot at once, in all processes that share the cache.
        seconds: when a slot frees itself, should its process be killed. Longer than the block can take.

    Raises:
        ConcurrencyLimit: all slots are taken.
    """
    if limit <= 0:
        yield
        return
    cache = caches[settings.RATELIMIT_USE_CACHE]
    mine = uuid.uuid4().hex
    expires_at = time.monotonic() + seconds
    slot = next((name for name in _slots(group, limit) if cache.add(name, mine, seconds)), None)
    if slot is None:
        raise ConcurrencyLimit(limit)
    try:
        yield
    finally:
        if time.monotonic() < expires_at - SURELY_OURS_SECONDS and cache.get(slot) == mine:
            cache.delete(slot)


def _slots(group: str, limit: int) -> Iterator[str]:
    return (f"{settings.RATELIMIT_CACHE_PREFIX}slot:{group}:{number}" for number in range(limit))
