"""What people do with many jobs or set runs at once, picked by a query: one answer, however many they are."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Greatest, Least

from generation.models import GenerationJob, SetRun
from generation.services.control import GREATEST_PRIORITY, LEAST_PRIORITY, retry_generation_job
from generation.services.quotas import QueueFull
from generation.services.set_runs import retry_set_run
from imagehub.accounts import audit
from imagehub.errors import ImageHubError, TooMany
from imagehub.jobs.models import JobStatus

MOST_AT_ONCE = 1000
"""So many are tried again by one call: each is a request of its own, with its own checks."""

Charge = Callable[[int], object]
"""Counts so many pictures for whoever asks, or raises ``RateLimited``; called in the transaction of what it counts."""

T = TypeVar("T", GenerationJob, SetRun)


@dataclass
class Retried:
    """What became of jobs or set runs that were to be tried again."""

    pictures: int = 0
    """So many are queued again."""
    refused: Counter[str] = field(default_factory=Counter)
    """How many could not be, by the reason."""
    left: int = 0
    """So many were not tried any more."""
    because: str = ""
    """Why those are left."""


def prioritise_selected(jobs: QuerySet[GenerationJob], *, step: int) -> int:
    """Let all of these jobs that have not ended go before or behind others by so much. Returns how many.

    Their priorities stay between ``LEAST_PRIORITY`` and ``GREATEST_PRIORITY``.
    """
    with transaction.atomic():
        chosen = GenerationJob.objects.filter(pk__in=jobs.order_by().values("pk")).active()
        changed = chosen.locked_in_order().update(
            priority=Greatest(LEAST_PRIORITY, Least(F("priority") + step, GREATEST_PRIORITY))
        )
        if changed:
            audit.record("generationjob.prioritise_many", after={"step": step, "jobs": changed})
    return changed


def cancel_set_runs(runs: QuerySet[SetRun]) -> int:
    """Cancel what is not finished of all these set runs; return how many pictures that are."""
    with transaction.atomic():
        reached = GenerationJob.objects.filter(set_run__in=runs.order_by().values("pk")).request_cancel()
        if reached:
            audit.record("setrun.cancel_many", after={"jobs": reached})
    return reached


def retry_jobs(jobs: QuerySet[GenerationJob], *, owner: User, charge: Charge) -> Retried:
    """Ask again for what the failed and cancelled ones among these jobs did not make, oldest first.

    Each is what :func:`retry_generation_job` makes of it, and counts like a request of the API: for the rate limit and for
    the quotas. When one of these says no, the others are left.
    """
    lost = jobs.filter(status__in=(JobStatus.FAILED, JobStatus.CANCELLED))
    related = ("base_model", "owner", "album", "init_image")

    def again(job: GenerationJob) -> int:
        made = retry_generation_job(job, owner=owner)
        charge(made.n)
        return made.n

    others = jobs.exclude(status__in=(JobStatus.FAILED, JobStatus.CANCELLED)).count()
    found = _retry_each(lost.select_related(*related).order_by("created_at", "id"), again)
    if others:
        found.refused["Only what has failed or was cancelled can be tried again."] += others
    return found


def retry_set_runs(runs: QuerySet[SetRun], *, owner: User, charge: Charge) -> Retried:
    """Make anew what has failed or was cancelled of all these set runs, oldest first: see :func:`retry_set_run`.

    Each run counts as one request of the API. When the rate limit or a quota says no, the others are left.
    """

    def again(run: SetRun) -> int:
        made = retry_set_run(run, owner=owner)
        charge(1)
        return made

    return _retry_each(runs.order_by("created_at", "id"), again)


def _retry_each(rows: QuerySet[T], again: Callable[[T], int]) -> Retried:
    result = Retried()
    total = rows.count()
    chosen: Iterable[T] = list(rows[:MOST_AT_ONCE])
    for tried, row in enumerate(chosen):
        try:
            with transaction.atomic():  # what is refused for its rate was never there
                result.pictures += again(row)
        except (TooMany, QueueFull) as error:
            result.left, result.because = total - tried, str(error)
            return result
        except (ImageHubError, ValidationError) as error:
            text = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            result.refused[text] += 1
    if total > MOST_AT_ONCE:
        result.left = total - MOST_AT_ONCE
        result.because = f"{MOST_AT_ONCE} are tried again at once."
    return result
