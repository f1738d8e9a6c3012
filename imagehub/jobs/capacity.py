"""How many jobs of a kind may be under way at once."""

from django.db import router
from django.db.models import Q
from django.db.models.functions import Now

from imagehub.concurrency import ConcurrencyLimit
from imagehub.database import take_turn
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
    using = router.db_for_write(model)
    take_turn(f"capacity of {model._meta.label_lower}", using=using)
    under_way = model._default_manager.using(using).filter(
        Q(status=JobStatus.QUEUED) | Q(status=JobStatus.RUNNING, lease_until__gte=Now())
    )
    if under_way.count() >= limit:
        raise ConcurrencyLimit(limit)
