"""How many jobs of a kind may be under way at once."""

import hashlib

from django.db import connections, router
from django.db.models import Q
from django.db.models.functions import Now
from django.db.transaction import TransactionManagementError

from imagehub.concurrency import ConcurrencyLimit
from imagehub.jobs.models import Job, JobStatus


def require_capacity(model: type[Job], limit: int) -> None:
    """Raise unless one more job of a kind may be queued; a limit of zero or less is none.

    Jobs that are queued or running count. A running one whose lease has expired does not: its worker is gone, and nobody
    shall have to wait for the reaper. Call it inside the transaction that queues the new job: until that ends, no other
    caller passes.

    Raises:
        ConcurrencyLimit: as many are under way as may be.
        TransactionManagementError: there is no transaction.
    """
    if limit <= 0:
        return
    connection = connections[router.db_for_write(model)]
    if not connection.in_atomic_block:
        raise TransactionManagementError("Count and queue jobs in one transaction.")
    if (
        connection.vendor == "postgresql"
    ):  # SQLite's transactions are IMMEDIATE: there is one writer at a time
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_lock_number(model)])
    under_way = model._default_manager.using(connection.alias).filter(
        Q(status=JobStatus.QUEUED) | Q(status=JobStatus.RUNNING, lease_until__gte=Now())
    )
    if under_way.count() >= limit:
        raise ConcurrencyLimit(limit)


def _lock_number(model: type[Job]) -> int:
    """Return a number of 64 bits that stands for this kind among all advisory locks."""
    digest = hashlib.sha256(f"capacity of {model._meta.label_lower}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
