"""The tables of the job system, and the abstract one that every kind of job has."""

from imagehub.jobs.models.jobs import (
    LEASE,
    MOST_OVERTAKEN,
    NEVER,
    NOTHING_TO_COME,
    TRANSITIONS,
    Job,
    JobQuerySet,
    JobStatus,
    lease_end,
)
from imagehub.jobs.models.presence import Audience, WorkerPresence
from imagehub.jobs.models.queue import OwnerTurn, QueuePause

__all__ = [
    "LEASE",
    "MOST_OVERTAKEN",
    "NEVER",
    "NOTHING_TO_COME",
    "TRANSITIONS",
    "Audience",
    "Job",
    "JobQuerySet",
    "JobStatus",
    "OwnerTurn",
    "QueuePause",
    "WorkerPresence",
    "lease_end",
]
