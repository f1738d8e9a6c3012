"""Set runs: a job for each row of a set, submitted together, followed as one, and retried where they failed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import (
    Avg,
    Case,
    Count,
    DurationField,
    ExpressionWrapper,
    F,
    JSONField,
    Max,
    Min,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
)
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from albums.models import Album, Image, ImageQuerySet, Visibility
from albums.models.ids import AmongIds
from albums.services import create_album
from albums.set_templates import render_set
from generation.models import GenerationJob, SetRun, derive_seed
from generation.services.control import (
    AlreadyFinished,
    ModelDisabled,
    SetRunGone,
    hold_set_run,
    reopen_set_run,
)
from generation.services.quotas import check_quota
from generation.services.stacks import hold_adapters
from generation.services.submitting import check_parameters, find_earlier, hold_albums
from imagehub.accounts import audit
from imagehub.database import insert_like
from imagehub.errors import Conflict, Fault, ImageHubError, InvalidFields
from imagehub.identifiers import new_id
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobQuerySet, JobStatus
from imagehub.jobs.queue import ring

LONGEST_SET_NAME = 180
"""Of it, the name of an album has so much: the time has to fit behind."""

MAX_FAULTS = 100

SHARED = (
    "negative_prompt", "seed_mode", "steps", "width", "height", "guidance_scale", "scheduler",
    "base_model_id", "loras", "n", "visibility", "max_attempts",
)  # fmt: skip
"""What all jobs of a run have in common. The others are its prompt, name and seed, and where it stands."""


class NothingToRetry(Conflict):
    code = "nothing_to_retry"
    title = "No picture of the set run has failed"


@dataclass(frozen=True)
class Progress:
    """How far a set run is: how many of its pictures stand where, and what follows from that."""

    counts: dict[str, int]
    share: float
    """Of the work, finished: 0 to 1."""
    eta_seconds: float | None
    finished_at: Any = None

    def count(self, status: str) -> int:
        return self.counts.get(status, 0)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def status(self) -> JobStatus:
        """The one status that says most: what still goes on, or else the worst that has happened."""
        waiting = self.count(JobStatus.PENDING) + self.count(JobStatus.QUEUED)
        if self.count(JobStatus.RUNNING) or (waiting and waiting < self.total):
            return JobStatus.RUNNING
        if waiting:
            return JobStatus.QUEUED
        for status in (JobStatus.FAILED, JobStatus.CANCELLED):
            if self.count(status):
                return status
        return JobStatus.COMPLETED if self.total else JobStatus.PENDING

    @property
    def message(self) -> str:
        """What the status does not say: that some of the pictures are missing."""
        missing = [
            f"{self.count(status)} {status.value}"
            for status in (JobStatus.FAILED, JobStatus.CANCELLED)
            if self.count(status)
        ]
        return f"Of {self.total} pictures: {', '.join(missing)}." if missing else ""


NOTHING_YET = Progress(counts={}, share=0.0, eta_seconds=None)


def submit_set_run(
    run: SetRun, pattern: GenerationJob, *, rows: Sequence[int] | None = None, album_name: str = ""
) -> tuple[SetRun, bool]:
    """Save a new set run with a job for each row of its template, and queue them: all or none.

    Costs the same few queries however many rows there are. Without an album one is made.

    Args:
        run: owner, template, theme and, if it is there already, the album.
        pattern: an unsaved job with what all have in common. Its seed is that of row 0: each row has the one that
            :func:`derive_seed` gives its index, also when only some are made.
        rows: the indexes of the rows to make; all by default.
        album_name: what a new album is called; by default the set and the time.

    Returns:
        The run, and whether it is new: see :func:`submit_generation` for keys.

    Raises:
        AdapterMissing: somebody deleted or disabled an adapter in the meantime.
        AlbumGone: somebody deleted the set or the album in the meantime.
        Invalid: the theme, a row or the parameters are no good.
        KeyUsedDifferently: the earlier run came from a different request.
        NotASet, SetBroken: no prompts can be rendered.
        QueueFull, QuotaExceeded, BeyondQuota: see :func:`check_quota`.
    """
    if earlier := _earlier(run):
        return earlier, False
    template: Album = run.template  # type: ignore[assignment]
    items = render_set(template, run.theme)
    indexes = _chosen(rows, len(items))
    first = items[indexes[0]]
    pattern.prompt, pattern.name = first.prompt, first.name
    check_parameters(pattern)
    try:
        with transaction.atomic():
            hold_albums([template, run.album] if run.album else [template])
            hold_adapters(pattern.loras)
            _check_quota(pattern, len(indexes))
            if run.album is None:
                run.album = create_album(_album_of(run, template, pattern, album_name))
            run.total = len(indexes)
            run.save(force_insert=True)
            pattern.set_run, pattern.album = run, run.album
            _queue(
                pattern,
                {
                    "set_index": indexes,
                    "prompt": [items[index].prompt for index in indexes],
                    "name": [items[index].name for index in indexes],
                    "seed": [derive_seed(pattern.seed, pattern.seed_mode, index) for index in indexes],
                },
            )
    except (IntegrityError, ImageHubError):
        if earlier := _earlier(run):
            return (
                earlier,
                False,
            )  # the same request, sent twice at once: the other one took the key, or the last place
        raise
    return run, True


def retry_set_run(run: SetRun, *, owner: User) -> int:
    """Make the pictures anew that have failed or were cancelled: a new job for each of them. Returns how many.

    Args:
        run: the set run.
        owner: who asks now, and whose quota counts.

    Raises:
        AdapterMissing: an adapter has gone since.
        AlbumGone: somebody deleted the album at this moment.
        ModelDisabled: the base model is not to be used any more.
        NothingToRetry: none has failed or was cancelled.
        QueueFull, QuotaExceeded, BeyondQuota: see :func:`check_quota`.
        SetRunGone: a purge has deleted it at this moment.
    """
    again = ("set_index", "prompt", "name", "seed", "priority")
    with transaction.atomic():
        try:
            run.refresh_from_db()
        except SetRun.DoesNotExist as error:
            raise SetRunGone("It has been cleared out, as it was old.") from error
        hold_albums([run.album] if run.album else [])  # before the run, as those do who merge albums
        # Of two who ask at once, the second finds nothing left to retry.
        hold_set_run(run.pk)
        lost = items_of(run).filter(status__in=[JobStatus.FAILED, JobStatus.CANCELLED])
        rows = list(lost.order_by("set_index").values_list("id", *again))
        if not rows:
            raise NothingToRetry("Nothing of this set run has failed or was cancelled.")
        one = GenerationJob.objects.select_related("base_model").get(pk=rows[0][0])
        if not one.base_model.is_enabled:
            raise ModelDisabled(f"The base model “{one.base_model}” is disabled.")
        hold_adapters(one.loras)
        pattern = GenerationJob(owner=owner, **{name: getattr(one, name) for name in SHARED})
        pattern.set_run, pattern.album = run, run.album
        _check_quota(pattern, len(rows))
        columns = dict(zip(("retry_of", *again), zip(*rows, strict=True), strict=True))
        _queue(pattern, columns)
        reopen_set_run(run.pk)
        audit.record("setrun.retry", run, after={"jobs": len(rows)})
    return len(rows)


def cancel_set_run(run: SetRun) -> int:
    """Cancel what is not finished: what waits ends at once, what runs is asked to stop. Returns how many these are.

    Raises:
        AlreadyFinished: nothing is left to cancel.
    """
    with transaction.atomic():
        reached = GenerationJob.objects.filter(set_run=run.pk).request_cancel()
        if not reached:
            raise AlreadyFinished("Every picture of the set run is finished, failed or cancelled already.")
        audit.record("setrun.cancel", run, after={"jobs": reached})
    return reached


def items_of(*runs: SetRun) -> JobQuerySet[GenerationJob]:
    """Return the jobs that count: of each row the last one, for a retry stands in the place of what it repeats."""
    return _items_of([run.pk for run in runs])


def _items_of(runs: Sequence[UUID]) -> JobQuerySet[GenerationJob]:
    # One step into the index for each job. Where PostgreSQL turns NOT EXISTS into a join, it compares each with each.
    last = GenerationJob.objects.filter(set_run=OuterRef("set_run"), set_index=OuterRef("set_index"))
    return GenerationJob.objects.filter(set_run__in=runs, pk=Subquery(last.order_by("-id").values("pk")[:1]))


def progress_of(runs: Iterable[SetRun]) -> dict[UUID, Progress]:
    """Return how far set runs are, by the same few queries for all of them.

    Of a run that has ended the jobs are counted once, and what was found stays on its row: a list costs no more for all
    that was ever made.
    """
    runs = list(runs)
    rows = SetRun.objects.filter(pk__in=[run.pk for run in runs]).values_list("pk", "outcome", "retries")
    known = {
        pk: (outcome, retries) for pk, outcome, retries in rows
    }  # before the jobs are counted: see _keep
    ended = {pk: _recalled(outcome) for pk, (outcome, _) in known.items() if outcome is not None}
    counted = _count([pk for pk, (outcome, _) in known.items() if outcome is None])
    _keep({pk: (progress, known[pk][1]) for pk, progress in counted.items() if progress.finished_at})
    return {run.pk: NOTHING_YET for run in runs} | ended | counted


def _recalled(outcome: Mapping[str, Any]) -> Progress:
    return Progress(outcome["counts"], 1.0, 0.0, parse_datetime(outcome["finished_at"]))


def _keep(ended: Mapping[UUID, tuple[Progress, int]]) -> None:
    """Note how runs ended, but for those that got new jobs since their row was read."""
    notes = [
        When(
            pk=pk,
            retries=retries,
            then=Value(
                {"counts": progress.counts, "finished_at": progress.finished_at.isoformat()},
                output_field=JSONField(),
            ),
        )
        for pk, (progress, retries) in ended.items()
    ]
    if notes:
        SetRun.objects.filter(pk__in=list(ended)).update(outcome=Case(*notes, default=F("outcome")))


def _count(runs: Sequence[UUID]) -> dict[UUID, Progress]:
    if not runs:
        return {}
    took = ExpressionWrapper(F("finished_at") - F("started_at"), output_field=DurationField())
    completed = Q(status=JobStatus.COMPLETED)
    rows = (
        _items_of(runs)
        .order_by()
        .values("set_run")
        .annotate(
            **{status.value: Count("pk", filter=Q(status=status)) for status in JobStatus},
            percent=Sum("progress", filter=Q(status=JobStatus.RUNNING)),
            seconds=Avg(took, filter=completed & Q(started_at__isnull=False)),
            began=Min("started_at"),
            ended=Max("finished_at"),
        )
    )
    return {row["set_run"]: _progress(row) for row in rows}


def _progress(row: dict[str, Any]) -> Progress:
    counts = {status.value: row[status.value] for status in JobStatus}
    total, finished = sum(counts.values()), sum(counts[status] for status in JobStatus.FINISHED)
    half_done = (row["percent"] or 0) / 100
    left = total - finished - half_done
    seconds: timedelta | None = row["seconds"]
    eta = None
    if not left:
        eta = 0.0
    elif seconds is not None:  # as many at once as there are now
        eta = round(seconds.total_seconds() * left / max(counts[JobStatus.RUNNING], 1), 1)
    return Progress(
        counts=counts,
        share=(finished + half_done) / total,
        eta_seconds=eta,
        finished_at=row["ended"] if finished == total else None,
    )


def _earlier(run: SetRun) -> SetRun | None:
    return find_earlier(
        SetRun, owner=run.owner, idempotency_key=run.idempotency_key, body_digest=run.body_digest
    )


def _chosen(rows: Sequence[int] | None, total: int) -> list[int]:
    """Return which rows are to be made, in their order."""
    if rows is None:
        return list(range(total))
    faults, seen = [], set()
    for place, index in enumerate(rows):
        if not 0 <= index < total:
            faults.append(Fault(f"/rows/{place}", f"The set has the rows 0 to {total - 1}.", "out_of_range"))
        elif index in seen:
            faults.append(Fault(f"/rows/{place}", "This row is named twice.", "duplicate"))
        seen.add(index)
    if not rows:
        faults.append(Fault("/rows", "Name at least one row.", "empty"))
    if faults:
        raise InvalidFields(faults[:MAX_FAULTS])
    return sorted(rows)


def _album_of(run: SetRun, template: Album, pattern: GenerationJob, name: str) -> Album:
    tells = template.visibility == Visibility.PUBLIC or pattern.visibility == Visibility.PRIVATE
    # Not after the theme: it is a part of prompts, and names stand in logs and in the audit trail. Nor does an album
    # that everybody sees name a set that not everybody does.
    title = template.name[:LONGEST_SET_NAME] if tells else "Set"
    return Album(
        owner=run.owner,
        name=name or f"{title} {timezone.localtime():%Y-%m-%d %H:%M}",
        description=f"Made from the set “{template.name}”." if tells else "",
        kind=Album.Kind.SET,
        visibility=pattern.visibility,
    )


def _check_quota(job: GenerationJob, images: int) -> None:
    check_quota(job.owner, images=images, pixels=images * job.width * job.height)


def _queue(pattern: GenerationJob, each: Mapping[str, Sequence[Any]]) -> None:
    """Insert jobs that differ in some columns, in the order in which they are to be made, and queue them."""
    ids = [new_id() for _ in each["set_index"]]  # they sort by that order
    insert_like(pattern, {"id": ids, **each})
    GenerationJob.objects.filter(set_run=pattern.set_run_id).enqueue()
    ring(Cluster.GENERATION)


def images_of(jobs: Sequence[GenerationJob]) -> ImageQuerySet:
    """Return the pictures of some jobs that make one each, without those in the trash."""
    ids = [str(job.pk) for job in jobs]
    return Image.objects.live().filter(
        AmongIds(ids, name="source_id"), source_kind=Image.SourceKind.GENERATION, source_index=0
    )
