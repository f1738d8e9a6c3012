"""The clusters that do background work, and how long their work may last. Free of Django: settings read it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Cluster(StrEnum):
    """A named group of Django-Q workers. A name outside this enum cannot be enqueued."""

    DEFAULT = "default"
    SCRAPING = "scraping"
    TRAINING = "training"
    GENERATION = "generation"


@dataclass(frozen=True)
class ClusterLimits:
    """What one cluster may do at most.

    ``max_wall_seconds`` is the largest wall time that the configuration may allow one job of the
    cluster; Django-Q's own timeouts are derived from it and lie beyond it, so that only the guard ends a job.
    """

    workers: int
    max_wall_seconds: int


LIMITS: dict[Cluster, ClusterLimits] = {
    Cluster.DEFAULT: ClusterLimits(workers=2, max_wall_seconds=3600),
    Cluster.SCRAPING: ClusterLimits(workers=1, max_wall_seconds=24 * 3600),
    Cluster.TRAINING: ClusterLimits(workers=1, max_wall_seconds=7 * 24 * 3600),
    Cluster.GENERATION: ClusterLimits(workers=1, max_wall_seconds=6 * 3600),
}

QUEUE_LIMIT = 1
"""Messages a cluster fetches ahead. They are doorbells, so more would only lengthen a stop."""

SLICE_SECONDS = 300
"""A worker that heard one doorbell claims new rows for this long, then rings again and lets go."""

GRACE_SECONDS = 120
"""The longest time between asking a child to stop and killing it (``research/training.md`` 3.2)."""


def django_q_timeout(cluster: Cluster) -> int:
    """Seconds after which Django-Q ends a task: a backstop that no healthy job reaches."""
    return SLICE_SECONDS + LIMITS[cluster].max_wall_seconds + 2 * GRACE_SECONDS


def django_q_retry(cluster: Cluster) -> int:
    """Seconds after which Django-Q hands an unanswered message out again.

    The lock starts when a message is fetched, not when its task starts, so all the messages that may
    lie in front of it count: one per worker, the queue, and one in the pusher's hand.
    """
    workers = LIMITS[cluster].workers
    depth = workers + QUEUE_LIMIT + 1
    return depth * django_q_timeout(cluster) // workers + 600


def django_q_settings() -> dict[str, Any]:
    """Build the ``Q_CLUSTER`` setting. Every choice in it is explained in ``docs/operations.md``."""
    per_cluster = {
        cluster: {
            "workers": limits.workers,
            "timeout": django_q_timeout(cluster),
            "retry": django_q_retry(cluster),
        }
        for cluster, limits in LIMITS.items()
    }
    return {
        # The name is also that of the one cluster that runs schedules without a cluster of their own.
        "name": Cluster.DEFAULT.value,
        "orm": "default",
        "queue_limit": QUEUE_LIMIT,
        "bulk": 1,
        "poll": 0.2,
        "guard_cycle": 0.5,  # Django-Q finds an expired timer only at exact multiples of this
        "ack_failures": True,
        "max_attempts": 1,  # retrying is the job row's decision, not the broker's
        "save_limit": 0,  # a limit costs a scan for each result; a daily task prunes instead
        "catch_up": False,
        "recycle": 100_000,  # a fresh worker process would throw the warm engine away
        "daemonize_workers": True,
        **per_cluster[Cluster.DEFAULT],
        "ALT_CLUSTERS": {
            cluster.value: {**per_cluster[cluster], "scheduler": False}
            for cluster in Cluster
            if cluster is not Cluster.DEFAULT
        },
    }
