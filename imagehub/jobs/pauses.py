"""Pausing the queue: no worker takes a new job, and what runs goes on to its end."""

from collections.abc import Iterable

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from imagehub.accounts import audit
from imagehub.jobs.models import QueuePause
from imagehub.jobs.queue import ring
from imagehub.jobs.registry import JobKind


def pause(kinds: Iterable[JobKind], *, by: User, reason: str = "") -> None:
    """Let nobody claim jobs of these kinds from now on. To pause again changes the reason."""
    names = [kind.name for kind in kinds]
    with transaction.atomic():
        QueuePause.objects.bulk_create(
            [QueuePause(kind=name, reason=reason, paused_by=by, paused_at=timezone.now()) for name in names],
            update_conflicts=True,
            unique_fields=["kind"],
            update_fields=["reason", "paused_by", "paused_at"],
        )
        audit.record("queue.pause", after={"kinds": names, "reason": reason})


def resume(kinds: Iterable[JobKind]) -> None:
    """Let jobs of these kinds be claimed again, and tell the workers."""
    kinds = list(kinds)
    names = [kind.name for kind in kinds]
    with transaction.atomic():
        paused = QueuePause.objects.filter(kind__in=names)
        before = sorted(paused.values_list("kind", flat=True))
        paused.delete()
        audit.record("queue.resume", before={"paused": before}, after={"kinds": names})
        for cluster in {kind.cluster for kind in kinds}:
            ring(cluster)


def paused_kinds() -> dict[str, QueuePause]:
    """Return the pauses that hold, by the name of their kind."""
    return {pause.kind: pause for pause in QueuePause.objects.select_related("paused_by")}
