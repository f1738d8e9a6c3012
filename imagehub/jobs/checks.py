"""System checks of the job system's settings."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from imagehub.jobs.clusters import GRACE_SECONDS, LIMITS, Cluster


@register()
def check_timeouts(**_: Any) -> list[CheckMessage]:
    """Every cluster's timeout lies beyond its longest job, and its retry beyond everything it fetches."""
    problems: list[CheckMessage] = []
    for cluster in Cluster:
        conf = settings.Q_CLUSTER | settings.Q_CLUSTER["ALT_CLUSTERS"].get(cluster.value, {})
        timeout, retry, workers = conf["timeout"], conf["retry"], conf["workers"]
        if not isinstance(timeout, int) or timeout <= LIMITS[cluster].max_wall_seconds + GRACE_SECONDS:
            problems.append(
                Error(
                    f"The cluster {cluster} may end a job that its guard would still let run.",
                    hint="Its timeout is whole seconds, above the largest wall time plus grace.",
                    id="jobs.E001",
                )
            )
        elif retry <= (workers + conf["queue_limit"] + 1) * timeout / workers:
            problems.append(
                Error(
                    f"The cluster {cluster} may deliver a message again before its first delivery has ended.",
                    hint="retry > (workers + queue_limit + 1) * timeout / workers.",
                    id="jobs.E002",
                )
            )
    return problems
