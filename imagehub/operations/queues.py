"""How the queues stand: what waits, who is there, how fast it goes, and when it will be done."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min
from django.utils import timezone

from imagehub.jobs import presence
from imagehub.jobs.models import JobStatus, QueuePause
from imagehub.jobs.outlook import time_left
from imagehub.jobs.pauses import paused_kinds
from imagehub.jobs.registry import JobKind

RATE_WINDOW = timedelta(minutes=10)

RATE_JOBS = 200
"""So many of the jobs that were completed last are looked at to tell the rate; when they took less time, that is the window."""


@dataclass(frozen=True)
class QueueStatus:
    """One kind of job, and how its queue stands."""

    kind: str
    queued: int
    running: int
    pause: QueuePause | None
    workers: int
    oldest_age_seconds: float | None
    """Since when the one waits that has waited longest."""
    rate_per_minute: float
    """Completed jobs, measured over the last ten minutes."""
    eta_seconds: float | None
    """Until all of it is done, if nothing is added; None where nothing is known, or all is paused."""


@dataclass(frozen=True)
class Depth:
    """How much waits and runs of one kind of job."""

    queued: int
    running: int
    oldest_age_seconds: float | None
    """Since when the one waits that has waited longest."""


def depth(kind: JobKind, now: datetime) -> Depth:
    """Return how much of a kind waits and runs: one query."""
    jobs = kind.model._default_manager
    under_way = jobs.filter(status__in=(JobStatus.QUEUED, JobStatus.RUNNING)).order_by()
    rows = under_way.values_list("status").annotate(count=Count("pk"), oldest=Min("queued_at"))
    found = {status: (count, oldest) for status, count, oldest in rows}
    queued, oldest = found.get(JobStatus.QUEUED, (0, None))
    return Depth(
        queued=queued,
        running=found.get(JobStatus.RUNNING, (0, None))[0],
        oldest_age_seconds=round((now - oldest).total_seconds(), 1) if oldest else None,
    )


def queue_status(kinds: Iterable[JobKind]) -> list[QueueStatus]:
    """Return how the queue of each kind stands now."""
    pauses = paused_kinds()
    workers = Counter(presence.live().values_list("cluster", flat=True))
    now = timezone.now()
    return [_status(kind, pauses.get(kind.name), workers[kind.cluster.value], now) for kind in kinds]


def _status(kind: JobKind, pause: QueuePause | None, workers: int, now: datetime) -> QueueStatus:
    under_way = depth(kind, now)
    return QueueStatus(
        kind=kind.name,
        queued=under_way.queued,
        running=under_way.running,
        pause=pause,
        workers=workers,
        oldest_age_seconds=under_way.oldest_age_seconds,
        rate_per_minute=_rate(kind, now),
        eta_seconds=None if pause else time_left(kind, queued=under_way.queued),
    )


def _rate(kind: JobKind, now: datetime) -> float:
    # What has a time of end is completed unless one of these. Asked for by its status, SQLite would read all that ever was.
    completed = kind.model._default_manager.filter(finished_at__gt=now - RATE_WINDOW).exclude(
        status__in=(JobStatus.FAILED, JobStatus.CANCELLED)
    )
    ended = completed.order_by("-finished_at").values_list("finished_at", flat=True)[:RATE_JOBS]
    window = now - min(ended) if len(ended) == RATE_JOBS else RATE_WINDOW
    return round(60 * len(ended) / max(window.total_seconds(), 1.0), 2)
