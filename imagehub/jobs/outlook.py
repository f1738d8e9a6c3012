"""What lies ahead of jobs that have not ended: their place in the queue, when they will be done, and whether they can be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.core.cache import cache

from imagehub.jobs import presence
from imagehub.jobs.clusters import LIMITS
from imagehub.jobs.models import Job, JobStatus, QueuePause
from imagehub.jobs.positions import queue_positions
from imagehub.jobs.registry import JobKind

PACE_SECONDS = 2
"""How long it is good to know how fast a queue moves."""

SAMPLE = 32
"""The length of the queue that stands for all of it where the time of the jobs before one is estimated."""


@dataclass(frozen=True)
class Outlook:
    """What lies ahead of one job."""

    position: int | None = None
    """1 is the next to be claimed, 0 runs, None is not in the queue."""
    eta_seconds: float | None = None
    """Until it ends, as far as can be told."""
    reason: str | None = None
    """Why it is not possible as things are; None where it is."""

    @property
    def is_possible(self) -> bool:
        return self.reason is None


ENDED = Outlook()


def look_ahead(kind: JobKind, jobs: Sequence[Job]) -> dict[UUID, Outlook]:
    """Return what lies ahead of each of these jobs, by a number of queries that does not depend on how many there are."""
    waiting = [job for job in jobs if job.status in (JobStatus.PENDING, JobStatus.QUEUED)]
    running = [job for job in jobs if job.status == JobStatus.RUNNING]
    if not waiting and not running:
        return dict.fromkeys((job.pk for job in jobs), ENDED)
    reasons = _reasons(kind, waiting, running)
    positions = queue_positions(kind.model, waiting)
    possible = [job for job in waiting if job.pk not in reasons and job.pk in positions]
    times = _times(kind, possible, positions)
    outlooks = {
        job.pk: Outlook(positions.get(job.pk), times.get(job.pk), reasons.get(job.pk)) for job in waiting
    }
    outlooks |= {job.pk: Outlook(0, job.eta_seconds, reasons.get(job.pk)) for job in running}
    return {job.pk: outlooks.get(job.pk, ENDED) for job in jobs}


def _reasons(kind: JobKind, waiting: Sequence[Job], running: Sequence[Job]) -> Mapping[UUID, str]:
    workers = list(presence.live(kind.cluster).values_list("facts", flat=True))
    if not workers:
        return dict.fromkeys(
            (job.pk for job in (*waiting, *running)), f"No live worker in the cluster “{kind.cluster}”."
        )
    if not waiting:
        return {}
    if pause := QueuePause.objects.filter(kind=kind.name).first():
        sentence = f"The queue is paused: {pause.reason}" if pause.reason else "The queue is paused."
        return dict.fromkeys((job.pk for job in waiting), sentence)
    full = [facts.get(presence.WITHOUT_ROOM, {}).get(kind.name) for facts in workers]
    if all(full):  # each on a machine of its own: one that has room is enough
        return dict.fromkeys((job.pk for job in waiting), full[0])
    return kind.obstacles(waiting) if kind.obstacles else {}


def time_left(kind: JobKind, *, queued: int) -> float | None:
    """Estimate the seconds until all is done that waits and runs; None where nothing is known of it."""
    pace = _pace(kind)
    return None if pace is None else round((pace.left + queued * pace.typical) / pace.workers, 1)


def _times(kind: JobKind, jobs: Sequence[Job], positions: Mapping[UUID, int]) -> dict[UUID, float]:
    """Estimate when waiting jobs will be done: those before them, shared by all workers, and then their own time."""
    if kind.estimate is None or not jobs or (pace := _pace(kind)) is None:
        return {}
    seconds = kind.estimate(jobs)
    return {
        job.pk: round(
            (pace.left + (positions[job.pk] - 1) * pace.typical) / pace.workers + seconds[job.pk], 1
        )
        for job in jobs
        if job.pk in seconds
    }


@dataclass(frozen=True)
class Pace:
    """How fast a queue moves. Times are seconds."""

    typical: float
    """The mean of the jobs at the beginning of the queue."""
    left: float
    """Of those that run."""
    workers: int


def _pace(kind: JobKind) -> Pace | None:
    """Return how fast a queue moves, or moved a moment ago; None where nothing is known of what is in it."""
    key = f"queue-pace:{kind.name}"
    found: tuple[Pace | None] | None = cache.get(key)
    if found is None:
        found = (_measured_pace(kind),)
        cache.set(key, found, PACE_SECONDS)
    return found[0]


def _measured_pace(kind: JobKind) -> Pace | None:
    if kind.estimate is None:
        return None
    rows = kind.model._default_manager
    running = list(rows.filter(status=JobStatus.RUNNING))
    sample = list(rows.queued().order_by("-priority", "owner", "queued_at", "id")[:SAMPLE])
    seconds = kind.estimate([*running, *sample])
    known = [seconds[job.pk] for job in sample or running if job.pk in seconds]
    if not known:
        return None if sample or running else Pace(0.0, 0.0, 1)
    typical = sum(known) / len(known)
    left = sum(
        job.eta_seconds if job.eta_seconds is not None else seconds.get(job.pk, typical) for job in running
    )
    return Pace(typical, left, max(1, presence.live(kind.cluster).count()) * LIMITS[kind.cluster].workers)
