"""Clearing out jobs that ended some time ago, of which no picture is left."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, Length

from generation.models import GenerationJob, SetRun
from generation.services.set_runs import items_of
from imagehub.in_use import in_use
from imagehub.jobs.models import Audience
from imagehub.operations import purges
from imagehub.operations.walking import in_order, older_than

PURGE = "generation"
"""The name of this kind of purge."""

NOT_NEEDED = {"error_trace": "", "idempotency_key": "", "body_digest": ""}
"""What goes of a job that stays: nobody looks for the fault any more, and no client asks again for the same."""


@dataclass(kw_only=True)
class Freed(purges.Freed):
    """What a purge of jobs deletes, or would. Bytes are those of previews and tracebacks."""

    jobs: int = 0
    set_runs: int = 0
    slimmed: int = 0
    """Jobs that stay, of which the traceback and the idempotency key go."""
    kept: int = 0
    """Jobs that stay: a picture comes from them, or a set run counts them, or something else needs them."""


def register() -> None:
    """Let the platform clear out jobs."""
    purges.register(
        purges.PurgeKind(
            name=PURGE,
            things="jobs",
            setting="generation.retention_days",
            clock="purges.generation_at",
            perform=purge_jobs,
            counts={"jobs": "jobs", "set_runs": "set runs", "slimmed": "tracebacks and keys of others"},
        )
    )


def purge_jobs(
    *,
    cutoff: datetime,
    is_dry_run: bool = False,
    limit: int | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Freed:
    """Delete the rows of jobs that ended before and that nothing needs, with their previews and tracebacks.

    What is left: jobs that have not ended; those that something needs (:mod:`imagehub.in_use`), first of all those that an
    image names, be it in the trash, for from a picture one can walk back to the job that made it; and set runs with each
    row's last job, as long as one of their jobs stays: they still tell how they ended, and what has failed can be retried.
    A set run of which nothing is needed goes as a whole.

    With a limit so many jobs go at most.
    """
    freed = Freed()
    for runs in in_order(SetRun.objects.filter(created_at__lt=cutoff)):
        for run in _ended(runs, cutoff):
            _purge_set_run(run, freed, cutoff=cutoff, is_dry_run=is_dry_run, limit=limit)
            on_progress()
    for keys in older_than(GenerationJob.objects.all(), cutoff, by="finished_at"):
        if limit is not None and freed.jobs >= limit:
            break
        with transaction.atomic():
            _purge_some(keys, freed, is_dry_run=is_dry_run, limit=limit)
        on_progress()
    return freed


def _ended(runs: Sequence[UUID], cutoff: datetime) -> QuerySet[SetRun]:
    """Return those set runs that have no job which has not ended before."""
    others = GenerationJob.objects.filter(
        Q(finished_at=None) | Q(finished_at__gte=cutoff), set_run=OuterRef("pk")
    )
    return SetRun.objects.filter(~Exists(others), pk__in=runs)


def _purge_set_run(
    run: SetRun, freed: Freed, *, cutoff: datetime, is_dry_run: bool, limit: int | None
) -> None:
    """Delete a set run with all its jobs, in one go, or nothing of it: what is left could not say how it ended."""
    with transaction.atomic():
        # Who retries it waits, and finds it gone, or we find his jobs.
        if SetRun.objects.select_for_update().filter(pk=run.pk).first() is None or not _ended(
            [run.pk], cutoff
        ):
            return
        jobs = GenerationJob.objects.filter(set_run=run.pk)
        count = jobs.count()
        if limit is not None and freed.jobs + count > limit:
            return
        if any(in_use(GenerationJob, keys) for keys in in_order(jobs)):
            return
        if is_dry_run:  # those that were tried again are counted with the jobs of their own
            freed.jobs += items_of(run).count()
        else:
            freed.bytes += sum(_delete(keys) for keys in in_order(jobs))
            runs = SetRun.objects.filter(pk=run.pk)
            runs._raw_delete(using=runs.db)
            freed.jobs += count
        freed.set_runs += 1


def _purge_some(keys: list[UUID], freed: Freed, *, is_dry_run: bool, limit: int | None) -> None:
    """Delete what nothing needs of these jobs, and what is not needed of the others."""
    # Who tries one of them again at this moment waits, and finds it gone, or we find his job. What others hold stays till next time.
    rows = GenerationJob.objects.filter(pk__in=keys).order_by("pk")
    held = set(rows.select_for_update(skip_locked=True).values_list("pk", flat=True))
    needed = held & set(in_use(GenerationJob, held))
    counted = held & set(_last_of_their_rows(held))
    doomed = [key for key in keys if key in held - needed - counted]  # still the oldest first
    if limit is not None:
        doomed = doomed[: limit - freed.jobs]
    staying = GenerationJob.objects.filter(pk__in=needed | counted).exclude(**NOT_NEEDED)
    freed.kept += len(needed | counted)
    freed.slimmed += staying.count() if is_dry_run else staying.update(**NOT_NEEDED)
    freed.bytes += _bytes(doomed) if is_dry_run else _delete(doomed)
    freed.jobs += len(doomed)


def _last_of_their_rows(keys: set[UUID]) -> Iterator[UUID]:
    """Return those of these jobs that their set run counts: no later one stands in their place."""
    later = GenerationJob.objects.filter(
        set_run=OuterRef("set_run"), set_index=OuterRef("set_index"), pk__gt=OuterRef("pk")
    )
    counted = GenerationJob.objects.filter(~Exists(later), pk__in=keys, set_run__isnull=False)
    return counted.values_list("pk", flat=True).iterator()


def _delete(keys: list[UUID]) -> int:
    """Delete jobs and what is shown of them, in the transaction that is open; return the bytes of that.

    Without signals, for which each row would be read: but for retries, which are told, nothing hangs on them.
    """
    if not keys:
        return 0
    size = _bytes(keys)
    GenerationJob.objects.filter(retry_of__in=keys).update(retry_of=None)
    for rows in (Audience.objects.filter(job__in=keys), GenerationJob.objects.filter(pk__in=keys)):
        rows._raw_delete(using=rows.db)
    return size


def _bytes(keys: Sequence[UUID]) -> int:
    """Return how large the previews and tracebacks of jobs are."""

    def total(rows: QuerySet[Any], column: str) -> int:
        return rows.aggregate(size=Coalesce(Sum(Length(column)), 0))["size"]

    traces = GenerationJob.objects.filter(pk__in=keys).exclude(error_trace="")
    return total(Audience.objects.filter(job__in=keys), "preview") + total(traces, "error_trace")
