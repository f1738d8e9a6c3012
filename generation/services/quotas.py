"""How many pictures may wait, and how many somebody may ask for in a day."""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import router
from django.db.models import BigIntegerField, F, Q, QuerySet, Sum
from django.db.models.functions import Cast
from django.utils import timezone

from generation.models import GenerationJob
from imagehub.config import get_config
from imagehub.database import take_turn
from imagehub.errors import NotReady, TooMany
from imagehub.jobs.models import JobStatus

DAY = timedelta(days=1)

RETRY_SECONDS = 60
"""What those are told to wait whose earlier pictures have to be made first. Nobody knows how long that takes."""


class QueueFull(NotReady):
    code = "queue_full"
    title = "Too many pictures wait already"


class BeyondQuota(NotReady):
    code = "beyond_quota"
    title = "More than one may ever ask for"


class QuotaExceeded(TooMany):
    code = "quota_exceeded"
    title = "The quota is used up"


def check_quota(owner: User, *, images: int, pixels: int) -> None:
    """Raise unless somebody may have that many more pictures queued now.

    Call it in the transaction that queues them: until that ends, no other caller passes. What failed or was cancelled does
    not count, and what a configuration sets to 0 is no limit.

    Args:
        owner: who asks.
        images: how many pictures.
        pixels: of all of them together.

    Raises:
        BeyondQuota: they would not fit even if nothing else were there.
        QueueFull: as many pictures wait, of everybody, as may.
        QuotaExceeded: the owner has as many waiting, or has asked for as many today, as one may.
        TransactionManagementError: there is no transaction.
    """
    limits = get_config().generation
    take_turn("quotas of generation", using=router.db_for_write(GenerationJob))
    waiting = GenerationJob.objects.queued().aggregate(all=Sum("n"), own=Sum("n", filter=Q(owner=owner)))
    if (waiting["all"] or 0) + images > limits.max_queued:
        raise QueueFull(
            f"{waiting['all'] or 0} pictures wait already, and {limits.max_queued} may."
            " Try again when some of them are made."
        )
    quotas = limits.quotas
    if quotas.queued_images:
        own = waiting["own"] or 0
        if images > quotas.queued_images:
            raise BeyondQuota(
                f"You may have {quotas.queued_images} pictures waiting; this asks for {images}."
            )
        if own + images > quotas.queued_images:
            raise QuotaExceeded(
                f"You may have {quotas.queued_images} pictures waiting; {own} wait, and this asks for {images} more.",
                limit=quotas.queued_images,
                retry_after=RETRY_SECONDS,
            )
    _check_day(owner, "pictures", limit=quotas.images_per_day, wanted=images, amount=F("n"))
    _check_day(
        owner,
        "pixels",
        limit=quotas.pixels_per_day,
        wanted=pixels,
        # PostgreSQL would multiply small integers as such, and find no room for the product.
        amount=Cast("n", BigIntegerField()) * F("width") * F("height"),
    )


def _check_day(owner: User, what: str, *, limit: int, wanted: int, amount: F) -> None:
    if not limit:
        return
    if wanted > limit:
        raise BeyondQuota(f"You may ask for {limit} {what} in 24 hours; this asks for {wanted}.")
    now = timezone.now()
    asked = _asked_since(owner, now - DAY)
    used = asked.aggregate(sum=Sum(amount))["sum"] or 0
    if used + wanted > limit:
        oldest_first = asked.order_by("created_at").values_list("created_at", amount)
        raise QuotaExceeded(
            f"You may ask for {limit} {what} in 24 hours; you have asked for {used}, and this asks for {wanted} more.",
            limit=limit,
            retry_after=_seconds_until_free(used + wanted - limit, oldest_first.iterator(), now),
        )


def _asked_since(owner: User, since: datetime) -> QuerySet[GenerationJob]:
    counted = (JobStatus.PENDING, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED)
    return GenerationJob.objects.filter(owner=owner, created_at__gt=since, status__in=counted)


def _seconds_until_free(needed: int, oldest_first: Iterable[tuple[datetime, int]], now: datetime) -> int:
    """Return when enough of what was asked for is a day old."""
    for asked_at, amount in oldest_first:
        needed -= amount
        if needed <= 0:
            return max(1, math.ceil((asked_at + DAY - now).total_seconds()))
    return int(DAY.total_seconds())
