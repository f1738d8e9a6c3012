"""Clearing out jobs that ended some time ago, of which no picture is left."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, Length

from generation.models import GenerationJob, SetRun
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

    With a limit so many jobs go at most. A dry run counts the same rows, and remembers the keys of the set runs that would go.
    """
    freed = Freed()
    gone: set[UUID] = set()
    for runs in in_order(SetRun.objects.filter(created_at__lt=cutoff)):
        for run in _ended(runs, cutoff):
            if _purge_set_run(run, freed, cutoff=cutoff, is_dry_run=is_dry_run, limit=limit) and is_dry_run:
                gone.add(run.pk)
            on_progress()
    for keys in older_than(GenerationJob.objects.all(), cutoff, by="finished_at"):
        if limit is not None and freed.jobs >= limit:
            break
        _purge_some(_without(keys, gone), freed, cutoff=cutoff, is_dry_run=is_dry_run, limit=limit)
        on_progress()
    return freed


def _without(keys: list[UUID], gone: set[UUID]) -> list[UUID]:
    """Return those of these jobs that are in none of some set runs."""
    if not gone:
        return keys
    in_runs = GenerationJob.objects.filter(pk__in=keys, set_run__isnull=False).values_list("pk", "set_run")
    others = {pk for pk, run in in_runs if run in gone}
    return [key for key in keys if key not in others]


def _ended(runs: Sequence[UUID], cutoff: datetime) -> QuerySet[SetRun]:
    """Return those set runs that have no job which has not ended before."""
    others = GenerationJob.objects.filter(
        Q(finished_at=None) | Q(finished_at__gte=cutoff), set_run=OuterRef("pk")
    )
    return SetRun.objects.filter(~Exists(others), pk__in=runs)


def _purge_set_run(
    run: SetRun, freed: Freed, *, cutoff: datetime, is_dry_run: bool, limit: int | None
) -> bool:
    """Delete a set run with all its jobs, in one go, or nothing of it: what is left could not say how it ended.

    Returns:
        whether it goes.
    """
    jobs = GenerationJob.objects.filter(set_run=run.pk)
    count = jobs.count()
    if limit is not None and freed.jobs + count > limit:
        return False
    if any(in_use(GenerationJob, keys) for keys in in_order(jobs)):
        return False
    if is_dry_run:
        freed.bytes += sum(_bytes(keys) for keys in in_order(jobs))
    else:
        with transaction.atomic():
            # Who retries it waits, and finds it gone, or we find his jobs.
            rows = SetRun.objects.filter(pk=run.pk)
            if not rows.select_for_update().values_list("pk") or not _ended([run.pk], cutoff):
                return False
            if any(in_use(GenerationJob, keys) for keys in in_order(jobs)):
                return False
            count = jobs.count()
            freed.bytes += sum(_delete(keys) for keys in in_order(jobs))
            rows._raw_delete(using=rows.db)
    freed.jobs += count
    freed.set_runs += 1
    return True


def _purge_some(
    keys: list[UUID], freed: Freed, *, cutoff: datetime, is_dry_run: bool, limit: int | None
) -> None:
    """Delete what nothing needs of these jobs, and what is not needed of the others.

    What is kept is looked at each time, for its picture may be gone by now, but locked, and written, once.
    """
    needed = _needed(keys)
    doomed = [key for key in keys if key not in needed]  # still the oldest first
    if limit is not None and len(doomed) >= limit - freed.jobs:
        doomed = doomed[: limit - freed.jobs]
        # Behind the last that may go nothing is counted: so it does not matter how the lists are cut.
        needed &= set(keys[: keys.index(doomed[-1])])
    staying = GenerationJob.objects.filter(pk__in=needed).exclude(**NOT_NEEDED)
    slim = set(staying.values_list("pk", flat=True))
    freed.kept += len(needed)
    if is_dry_run:
        freed.slimmed += len(slim)
        freed.bytes += _bytes(doomed)
        freed.jobs += len(doomed)
    elif doomed or slim:
        with transaction.atomic():
            held = _hold(doomed, slim, cutoff)
            found = _needed(held)  # by somebody who came in between
            freed.slimmed += staying.filter(pk__in=slim & held).update(**NOT_NEEDED)
            doomed = [key for key in doomed if key in held and key not in found]
            freed.bytes += _delete(doomed)
            freed.jobs += len(doomed)


def _hold(doomed: list[UUID], slim: set[UUID], cutoff: datetime) -> set[UUID]:
    """Lock jobs, and retries of those that are to go, until the transaction ends, and return which of them can be had.

    It waits for nobody. What somebody else holds stays till next time, and so does what he may be about to try again.
    """
    rows = GenerationJob.objects.select_for_update(skip_locked=True).order_by("pk")
    old = rows.filter(pk__in=[*doomed, *slim], finished_at__lt=cutoff)
    held = set(old.values_list("pk", flat=True))
    retries = GenerationJob.objects.filter(retry_of__in=held.intersection(doomed)).order_by("pk")
    ours = set(rows.filter(pk__in=retries.values("pk")).values_list("pk", flat=True)) if held else set()
    return held - {tried for pk, tried in retries.values_list("pk", "retry_of") if pk not in ours}


def _needed(keys: Collection[UUID]) -> set[UUID]:
    """Return which of these jobs have to stay."""
    return set(in_use(GenerationJob, keys)) | set(_last_of_their_rows(keys))


def _last_of_their_rows(keys: Collection[UUID]) -> Iterator[UUID]:
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
