"""Tasks that are no jobs, and do not stamp."""

import time
from datetime import timedelta

from django.db.models.functions import Now

from imagehub.jobs import presence
from imagehub.jobs.models import WorkerPresence

seen: list[bool] = []
"""Whether the cluster was seen while the task went on."""


def sleep() -> None:
    """Take longer than a cluster may be silent, as the database sees it."""
    WorkerPresence.objects.update(seen_at=Now() - timedelta(minutes=5))
    until = time.monotonic() + 5
    while not presence.live().exists() and time.monotonic() < until:
        time.sleep(0.05)
    seen.append(presence.live().exists())


def fail() -> None:
    """Break."""
    raise ValueError("It is broken.")
