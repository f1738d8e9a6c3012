"""Ringing a cluster's doorbell. This is the only place that puts messages on Django-Q's queue."""

from functools import partial

from django.db import transaction
from django.utils import timezone
from django_q.models import OrmQ
from django_q.tasks import async_task

from imagehub.jobs.clusters import Cluster


def ring(cluster: Cluster) -> None:
    """Tell a cluster, once this transaction commits, that it may find work.

    The message carries no work: losing, repeating or delaying it does no harm.

    Raises:
        TypeError: the cluster is not a member of the enum. Django-Q would accept any name, and nobody would answer.
    """
    if not isinstance(cluster, Cluster):
        raise TypeError(f"{cluster!r} is not a Cluster.")
    transaction.on_commit(partial(_send, cluster))


def is_ringing(cluster: Cluster) -> bool:
    """Tell whether a message for the cluster waits to be fetched."""
    return OrmQ.objects.filter(key=cluster.value, lock__lte=timezone.now()).exists()


def _send(cluster: Cluster) -> None:
    # Results of doorbells say nothing, so successes are not saved; Django-Q always saves failures.
    async_task("imagehub.jobs.tasks.answer_doorbell", cluster.value, cluster=cluster.value, save=False)
