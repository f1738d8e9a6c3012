"""Finding work that was lost: expired leases, and queued jobs without a doorbell; and previews that nobody watches."""

import logging
import time

from imagehub.jobs import live
from imagehub.jobs.queue import is_ringing, ring
from imagehub.jobs.registry import kinds

logger = logging.getLogger(__name__)

REAP_SECONDS = 10.0
"""How often every worker and every supervisor looks."""

_last_reap = float("-inf")


def reap() -> int:
    """Take jobs from lost workers, ring for queued jobs that nobody was told about, and delete what nobody watches.

    Returns how many jobs were taken from lost workers. Safe to run anywhere, any number of times at once.
    """
    taken = 0
    waiting = set()
    for kind in kinds():
        jobs = kind.model._default_manager
        found = jobs.reap()
        if found:
            logger.warning("Took %d %s jobs from lost workers", found, kind.name)
        taken += found
        if jobs.claimable().exists():
            waiting.add(kind.cluster)
    for cluster in waiting:
        if not is_ringing(cluster):
            ring(cluster)
    live.forget()
    return taken


def reap_now_and_then() -> None:
    """Reap unless this process did so within the last ten seconds."""
    global _last_reap
    if time.monotonic() - _last_reap >= REAP_SECONDS:
        _last_reap = time.monotonic()
        reap()
