"""What Django-Q calls. Each is named by its dotted path in a message or a schedule."""

import logging
from datetime import timedelta

from django.utils import timezone
from django_q.models import Task

from imagehub import roots
from imagehub.database import drop_connections
from imagehub.jobs import live, presence, reaper, run_log, runner
from imagehub.jobs.clusters import Cluster

logger = logging.getLogger(__name__)

RESULTS_KEPT = timedelta(days=30)


def answer_doorbell(cluster: str) -> int:
    """Work off what waits for a cluster; return the number of jobs done.

    An error ends here: Django-Q would store its text and traceback as they are, and the next doorbell comes anyway.
    """
    try:
        return runner.work_off(Cluster(cluster))
    except Exception as error:  # noqa: BLE001
        logger.error("A worker of %s met an error: %s", cluster, type(error).__name__)
        drop_connections()
        return 0


def reap() -> int:
    """Take jobs from lost workers."""
    return reaper.reap()


def prune() -> int:
    """Delete old results of Django-Q and traces of what is long gone; return the number of rows."""
    run_log.forget_old(roots.logs_root(), older_than=RESULTS_KEPT)
    old = Task.objects.filter(stopped__lt=timezone.now() - RESULTS_KEPT)
    return old.delete()[0] + presence.forget_dead() + live.forget()
