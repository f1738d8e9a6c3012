"""What people may do with jobs that are there."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet

from albums.models import Album
from albums.services import ImageGone
from generation.models import GenerationJob, SetRun
from generation.services.stacks import find_adapters
from generation.services.submitting import hold_albums, submit_generation
from imagehub.accounts import audit
from imagehub.errors import Conflict, NotReady
from imagehub.jobs.models import Job, JobStatus
from training.models import BaseModel

LEAST_PRIORITY, GREATEST_PRIORITY = -100, 100
MOST_TOLD = 100
"""Keys that the audit trail names of what was selected by a query."""


class AlreadyFinished(Conflict):
    code = "already_finished"
    title = "The job has finished"


class NotRetryable(Conflict):
    code = "not_retryable"
    title = "The job cannot be tried again"


class SetRunGone(Conflict):
    code = "set_run_gone"
    title = "The set run has been deleted"


class JobGone(Conflict):
    code = "job_gone"
    title = "The job has been deleted"


class ModelDisabled(NotReady):
    code = "model_disabled"
    title = "The base model is not to be used"


def cancel_generation_job(job: GenerationJob) -> GenerationJob:
    """Cancel a job: a waiting one ends at once, a running one is asked to stop.

    Raises:
        AlreadyFinished: there is nothing left to cancel.
    """
    with transaction.atomic():
        reached = GenerationJob.objects.filter(pk=job.pk).request_cancel()
        before = {"status": job.status}
        job.refresh_from_db()
        if reached:
            audit.record("generationjob.cancel", job, before=before, after={"status": job.status})
    if job.is_finished and not reached:
        raise AlreadyFinished(f"The job is {job.status} already.")
    return job


@dataclass(frozen=True)
class Cancelled:
    """What became of jobs that were to be cancelled at once."""

    cancelled: int
    """So many waited, and have ended."""
    stopping: int
    """So many run, and were asked to stop."""


def cancel_generation_jobs(
    *,
    ids: Collection[UUID] | QuerySet[GenerationJob] | None = None,
    set_run: SetRun | None = None,
    status: str | None = None,
    base_model: BaseModel | None = None,
    owner: User | None = None,
) -> Cancelled:
    """Cancel all jobs that have not ended and to which everything that is said applies.

    Args:
        ids: some keys, or a query for them (``values("pk")``).
        set_run: the run they belong to.
        status: where they stand.
        base_model: what they are made with.
        owner: whose they are.

    Raises:
        ValueError: nothing is said; that would be everybody's jobs.
    """
    said = {"pk__in": ids, "set_run": set_run, "status": status, "base_model": base_model, "owner": owner}
    conditions = {name: value for name, value in said.items() if value is not None}
    if not conditions:
        raise ValueError("Say which jobs to cancel.")
    # Columns of the row alone: a join would make the UPDATE look at what was, and not at what is.
    jobs = GenerationJob.objects.filter(**conditions)
    told = {name: _told(value) for name, value in conditions.items()}  # before a query for them finds others
    with transaction.atomic():
        reached = jobs.request_cancel()
        stopping = jobs.filter(status=JobStatus.RUNNING).count()
        audit.record("generationjob.cancel_many", after=told | {"jobs": reached})
    return Cancelled(cancelled=max(0, reached - stopping), stopping=stopping)


def _told(value: Any) -> str:
    """Return a condition as the audit trail keeps it; of a query the first keys that it finds."""
    if isinstance(value, QuerySet):
        return ", ".join(map(str, value.values_list("pk", flat=True)[:MOST_TOLD]))
    return str(value)


def prioritise_generation_job(job: GenerationJob, priority: int) -> GenerationJob:
    """Let a job go before or behind others; one that runs keeps it for the case that it is queued again.

    Raises:
        AlreadyFinished: it has ended.
    """
    with transaction.atomic():
        before = job.priority
        changed = GenerationJob.objects.filter(pk=job.pk).active().update(priority=priority)
        job.refresh_from_db()
        if not changed:
            raise AlreadyFinished(f"The job is {job.status} already.")
        audit.record(
            "generationjob.prioritise", job, before={"priority": before}, after={"priority": priority}
        )
    return job


def retry_generation_job(job: GenerationJob, *, owner: User) -> GenerationJob:
    """Ask again for what a job did not make: a new job with the same parameters and seed, in the same place of its set.

    Args:
        job: one that has failed or was cancelled.
        owner: who asks now, and whose quota counts.

    Raises:
        NotRetryable: it has not failed, and was not cancelled, or its place in a set has a later job already.
        AdapterMissing, ImageGone, JobGone, SetRunGone: it, or something it needs has been deleted since.
        ModelDisabled: its base model is not to be used any more.
        AlbumGone, QueueFull, QuotaExceeded, BeyondQuota: see :func:`submit_generation`.
    """
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise NotRetryable(
            f"The job is {job.status}; only what has failed or was cancelled can be tried again."
        )
    if not job.base_model.is_enabled:
        raise ModelDisabled(f"The base model “{job.base_model}” is disabled.")
    find_adapters(job.loras)
    if job.strength is not None and job.init_image_id is None:
        raise ImageGone("The image to start from has been deleted.")
    again = GenerationJob(owner=owner, retry_of=job, **{name: getattr(job, name) for name in _asked_for()})
    with transaction.atomic():
        if job.set_run_id is not None:
            hold_albums([job.album] if job.album else [])
            _refuse_second_retry(job)
            reopen_set_run(job.set_run_id)
        again, _ = submit_generation(again)
        # Behind the album, which who deletes it holds before its jobs.
        if not GenerationJob.objects.select_for_update(no_key=True).filter(pk=job.pk).values_list("pk"):
            raise JobGone("It has been cleared out, as it was old.")
    return again


def hold_set_run(pk: UUID | None) -> None:
    """Let nobody else give a set run new jobs, or delete it, until the transaction ends.

    Whoever holds several of these holds the albums first, then the set runs, and then their jobs.

    Raises:
        SetRunGone: a purge has deleted it in the meantime.
    """
    if SetRun.objects.select_for_update(no_key=True).filter(pk=pk).first() is None:
        raise SetRunGone("It has been cleared out, as it was old.")


def _refuse_second_retry(job: GenerationJob) -> None:
    """See that the place of a job in its set has no later one, and that nobody gives it one meanwhile."""
    hold_set_run(job.set_run_id)
    later = GenerationJob.objects.filter(set_run=job.set_run_id, set_index=job.set_index, id__gt=job.pk)
    if later.exists():
        raise NotRetryable("This picture of the set has been tried again already.")


def reopen_set_run(pk: UUID) -> None:
    """Note that a set run gets new jobs: what was known of how it ended holds no more."""
    SetRun.objects.filter(pk=pk).update(outcome=None, retries=F("retries") + 1)


def tries_of(job: GenerationJob, *, most: int) -> list[GenerationJob]:
    """Return a job with what it repeats and what repeats it, however often, oldest first; at most so many."""
    first = job
    found = {job.pk: job}
    while first.retry_of is not None and len(found) < most:
        first = first.retry_of
        found[first.pk] = first
    latest = list(found)
    while latest and len(found) < most:
        again = GenerationJob.objects.filter(retry_of__in=latest).exclude(pk__in=list(found))[
            : most - len(found)
        ]
        latest = [other.pk for other in again]
        found |= {other.pk: other for other in again}
    return sorted(found.values(), key=lambda other: (other.created_at, other.pk))


def _asked_for() -> list[str]:
    """Return the names of the columns that say what a job is to make, and not how it fares."""
    inherited = {field.name for field in Job._meta.get_fields()} - {"priority"}
    others = {"retry_of", "timings", "idempotency_key", "body_digest"}
    return [
        field.attname for field in GenerationJob._meta.concrete_fields if field.name not in inherited | others
    ]


def follow_merged_albums(*, album: Album, others: Sequence[Album], **_: Any) -> None:
    """Let jobs and set runs for albums that become part of another one put their pictures there."""
    _set_runs_in_order(Q(album__in=others)).update(album=album)
    GenerationJob.objects.filter(album__in=others).locked_in_order().update(album=album)


def hold_jobs_of_album(*, instance: Album, **_: Any) -> None:
    """Lock the set runs and jobs that will have no album any more, before Django changes them in whatever order it finds them."""
    _set_runs_in_order(Q(album=instance) | Q(template=instance))
    GenerationJob.objects.filter(album=instance).locked_in_order()


def _set_runs_in_order(which: Q) -> QuerySet[SetRun]:
    """Lock set runs in the order of their keys until the transaction ends, and return them."""
    runs = SetRun.objects.filter(which)
    if not connection.features.has_select_for_update:  # SQLite has one writer at a time
        return runs
    keys = runs.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True)
    return SetRun.objects.filter(pk__in=list(keys))
