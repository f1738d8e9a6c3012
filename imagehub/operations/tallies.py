"""Tallies of jobs that have ended: how many, how, and how long it took. They outlive the rows, which purges delete.

Nobody counts when a job ends, which is no moment to wait for a row that all others want as well. Whoever reads the tallies
first adds to them what has ended since they were read last. So each end is counted once, however many processes read and
whatever dies, and a tally never falls.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, models, router, transaction
from django.db.models.functions import Now

from imagehub.database import take_turn
from imagehub.jobs.models import Job, JobStatus
from imagehub.jobs.registry import JobKind, Measured, kinds
from imagehub.operations.models import Tally, TallyMark

logger = logging.getLogger(__name__)

LAG = timedelta(minutes=1)
"""An end is counted when it is so old. A transaction that is open longer than that, PostgreSQL ends (``settings.DATABASES``), so none
appears behind our back; and of a run that somebody resumes at once the failure does not count."""

BATCH = 10_000
"""So many ends, or a few more that share a moment, are counted at a time; the others when somebody reads again."""

WAIT_SECONDS = 2.0

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Seconds: from one picture of the starter model to a training that takes all day."""

MOST_LABELS = 50
"""Of one measure of one kind. What is named by other programs, such as codes of failures, must not be without end."""
OTHER = "other"
_LABEL = re.compile(r"[a-z0-9_.-]{1,50}")

INFINITY, SUM = "+Inf", "sum"

ENDED, FAILURES, DONE = "ended", "failures", "done"
WAIT, DURATION, PHASE = "wait", "duration", "phase"

Name = tuple[str, str, str]
"""The measure, the label and the bucket of a tally."""


@dataclass(frozen=True)
class Histogram:
    """How long something took, in seconds."""

    kind: str
    label: str
    buckets: list[tuple[str, float]]
    """How many took so long at most; the last is ``+Inf``."""
    seconds: float


@dataclass(frozen=True)
class Tallies:
    """All tallies, as they stand."""

    values: dict[tuple[str, str, str, str], float]
    """By kind, measure, label and bucket."""

    def counts(self, measure: str) -> Iterator[tuple[str, str, float]]:
        """Yield kind, label and value of each tally of a measure that is no histogram."""
        for (kind, of, label, _), value in self.values.items():
            if of == measure:
                yield kind, label, value

    def histograms(self, measure: str) -> Iterator[Histogram]:
        """Yield each histogram of a measure."""
        for kind, label in sorted({(kind, label) for kind, of, label, _ in self.values if of == measure}):
            found = {
                bucket: value
                for (*place, bucket), value in self.values.items()
                if place == [kind, measure, label]
            }
            total = found.pop(SUM, 0.0)
            buckets, so_far = [], 0.0
            for bound in sorted({*map(_bound, BUCKETS), *found, INFINITY}, key=float):
                so_far += found.get(bound, 0.0)
                buckets.append((bound, so_far))
            yield Histogram(kind, label, buckets, total)


def read() -> Tallies:
    """Count what has ended since somebody looked last, and return how all tallies stand.

    Raises:
        StillBusy: somebody else counts, and does not come to an end.
    """
    for kind in kinds():
        _count_ended(kind)
    return Tallies(
        {(tally.kind, tally.measure, tally.label, tally.bucket): tally.value for tally in Tally.objects.all()}
    )


def _count_ended(kind: JobKind) -> None:
    if (stretch := _stretch(kind)) is None:
        return
    with transaction.atomic():
        take_turn("tallies of jobs", using=router.db_for_write(Tally), wait_seconds=WAIT_SECONDS)
        if (stretch := _stretch(kind)) is None:  # another process was faster
            return
        ended, until = stretch
        counted: dict[Name, float] = {}
        unmeasured: Counter[str] = Counter()
        for job in ended.filter(finished_at__lt=until).iterator():
            amounts = [*_amounts(job)]
            try:
                amounts += _measured(kind, job)
            except DatabaseError:  # of no one job
                raise
            except Exception as error:  # noqa: BLE001 - else one job would keep all others from being counted, for good
                unmeasured[type(error).__name__] += 1
            for name, amount in amounts:
                counted[name] = counted.get(name, 0) + amount
        if unmeasured:  # what the errors say may quote the jobs
            logger.warning("Jobs of the kind %s could not be measured: %s", kind.name, dict(unmeasured))
        _add(kind.name, counted)
        TallyMark.objects.filter(kind=kind.name).update(until=until)


def _stretch(kind: JobKind) -> tuple[models.QuerySet[Any], datetime] | None:
    """Return the jobs that have ended and are not counted, and before when to count them now; None where there is none."""
    # By the database's clock, which has written when the jobs ended.
    mark = TallyMark.objects.filter(kind=kind.name).annotate(now=Now()).values_list("until", "now").first()
    if mark is None:  # counting begins
        TallyMark.objects.bulk_create([TallyMark(kind=kind.name)], ignore_conflicts=True)
        return None
    since, now = mark
    ended = kind.model._default_manager.filter(finished_at__gte=since).order_by("finished_at")
    moments: list[Any] = list(
        ended.filter(finished_at__lte=now - LAG).values_list("finished_at", flat=True)[:BATCH]
    )
    # Behind the last one: SQLite writes some moments in two ways, which it does not take for equal.
    return (ended, moments[-1] + timedelta(microseconds=1)) if moments else None


def _amounts(job: Job) -> Iterator[tuple[Name, float]]:
    """Yield what one job adds to which tallies, whatever its kind."""
    yield (ENDED, job.status, ""), 1
    if job.status == JobStatus.FAILED:
        yield (FAILURES, _label(job.error_code), ""), 1
    if job.started_at is not None and job.queued_at is not None:
        yield from _in_histogram(WAIT, "", (job.started_at - job.queued_at).total_seconds())
    if job.started_at is not None and job.finished_at is not None and job.status == JobStatus.COMPLETED:
        yield from _in_histogram(DURATION, "", (job.finished_at - job.started_at).total_seconds())


def _measured(kind: JobKind, job: Job) -> list[tuple[Name, float]]:
    """Return what one job adds to the tallies of its kind.

    Raises:
        ValueError: something of it is no number, which would spoil a tally for good.
        Exception: whatever keeps its kind from measuring it.
    """
    measured = kind.measure(job) if kind.measure else Measured()
    amounts: list[tuple[Name, float]] = []
    for phase, seconds in measured.seconds.items():
        amounts += _in_histogram(PHASE, _label(phase), _finite(seconds))
    for unit, amount in measured.done.items():
        amounts.append(((DONE, unit, ""), max(0, _finite(amount))))
    return amounts


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("This is no number.")
    return number


def _in_histogram(measure: str, label: str, seconds: float) -> Iterator[tuple[Name, float]]:
    seconds = max(0.0, seconds)  # clocks of two machines
    bucket = next((_bound(bound) for bound in BUCKETS if seconds <= bound), INFINITY)
    yield (measure, label, bucket), 1
    yield (measure, label, SUM), seconds


def _label(text: str) -> str:
    return text if _LABEL.fullmatch(text) else OTHER


def _bound(seconds: float) -> str:
    return f"{seconds:g}"


def _add(kind: str, counted: Mapping[Name, float]) -> None:
    """Add to the tallies of a kind. Nobody else does meanwhile."""
    rows = {(row.measure, row.label, row.bucket): row for row in Tally.objects.filter(kind=kind)}
    labels: dict[str, set[str]] = {}
    for measure, label, _ in rows:
        labels.setdefault(measure, set()).add(label)
    changed, new = [], []
    for (measure, label, bucket), amount in counted.items():
        known = labels.setdefault(measure, set())
        name = (measure, label if label in known or len(known) < MOST_LABELS else OTHER, bucket)
        known.add(name[1])
        if (row := rows.get(name)) is None:
            row = rows[name] = Tally(kind=kind, measure=name[0], label=name[1], bucket=bucket)
            new.append(row)
        else:
            changed.append(row)
        row.value += amount
    Tally.objects.bulk_create(new)
    Tally.objects.bulk_update({id(row): row for row in changed if row.pk}.values(), ["value"])
