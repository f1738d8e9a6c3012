"""Ringing a cluster's doorbell, and leaving it small work. This is the only place that puts messages on Django-Q's queue."""

from typing import Any

from django.db import transaction
from django.utils import timezone
from django_q.models import OrmQ
from django_q.tasks import async_task

from imagehub.jobs.clusters import Cluster


def ring(cluster: Cluster) -> None:
    """Tell a cluster, once this transaction commits, that it may find work.

    The message carries no work: losing, repeating or delaying it does no harm, and so it lets no error out. What was
    committed must not look as if it had failed because the database went away before the bell was rung.

    Raises:
        TypeError: the cluster is not a member of the enum.
    """
    # Results of doorbells say nothing, so successes are not saved; Django-Q always saves failures.
    send(cluster, "imagehub.jobs.tasks.answer_doorbell", str(cluster))


def send(cluster: Cluster, function: str, *args: Any) -> None:
    """Have a cluster call a function, once this transaction commits.

    For small work without a row of its own. The message may be lost and may come twice, so what it asks for has to be
    found by a schedule as well, and the function has to take repetition, and to let no error out.

    Args:
        cluster: who is to call it.
        function: its dotted path.
        args: what it is called with: few and plain, for they are stored with the message.

    Raises:
        TypeError: the cluster is not a member of the enum. Django-Q would accept any name, and nobody would answer.
    """
    if not isinstance(cluster, Cluster):
        raise TypeError(f"{cluster!r} is not a Cluster.")

    def deliver() -> None:
        async_task(function, *args, cluster=cluster.value, save=False)

    # What has been committed must not fail for want of a message. (Django cannot name a partial in its log.)
    transaction.on_commit(deliver, robust=True)


def is_ringing(cluster: Cluster) -> bool:
    """Tell whether a message for the cluster waits to be fetched."""
    return OrmQ.objects.filter(key=cluster.value, lock__lte=timezone.now()).exists()
