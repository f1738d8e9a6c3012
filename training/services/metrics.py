"""What runs measured, thinned out to what a curve can show; and figures of all runs together."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.cache import cache
from django.db.models import Avg, BigIntegerField, Count, F, Max, Min, Q, QuerySet
from django.db.models.functions import Cast, Greatest

from imagehub.jobs.models import JobStatus
from training.models import MetricPoint, TrainingRun

SPARK_SECONDS = 3600

FINE = ("learning_rate", "grad_norm", "seconds")


def curve(run: TrainingRun, kind: MetricPoint.Kind, *, points: int, since: int = -1) -> list[dict[str, Any]]:
    """Return at most so many points of a curve, by step: one query, however many were measured.

    Where there are more, each stands for a stretch of steps: with its last step, the mean of everything, and the lowest and the
    highest loss.

    Args:
        run: whose.
        kind: which curve.
        points: how many there may be.
        since: only what was measured after this step.
    """
    rows = MetricPoint.objects.filter(run=run, kind=kind, step__gt=since)
    ends = rows.aggregate(first=Min("step"), last=Max("step"), count=Count("pk"))
    if not ends["count"]:
        return []
    if ends["count"] <= points:
        found = rows.order_by("step").values("step", "loss", *FINE)
        return [point | {"loss_min": point["loss"], "loss_max": point["loss"]} for point in found]
    thinned = _thinned(rows, first=ends["first"], last=ends["last"], points=points)
    return [{"step": point.pop("last")} | point for point in thinned]


def _thinned(rows: QuerySet[MetricPoint], *, first: int, last: int, points: int) -> QuerySet[Any]:
    # Whole numbers all along: both databases then round down, and large enough for the product.
    stretch = (Cast("step", BigIntegerField()) - first) * points / (last - first + 1)
    means = {name: Avg(name) for name in ("loss", *FINE)}
    return (
        rows.annotate(stretch=stretch)
        .order_by("stretch")
        .values("stretch")
        .annotate(last=Max("step"), loss_min=Min("loss"), loss_max=Max("loss"), **means)
    )


@dataclass(frozen=True)
class Figures:
    """All runs together."""

    total_runs: int
    pending_runs: int
    queued_runs: int
    running_runs: int
    completed_runs: int
    failed_runs: int
    cancelled_runs: int
    success_rate: float | None
    """Of those that were completed or failed, the share that was completed, in percent; None: none was."""


def figures() -> Figures:
    """Return how many runs stand where."""
    counts = TrainingRun.objects.aggregate(
        total_runs=Count("pk"),
        **{f"{status}_runs": Count("pk", filter=Q(status=status)) for status in JobStatus.values},
    )
    tried = counts["completed_runs"] + counts["failed_runs"]
    return Figures(**counts, success_rate=round(100 * counts["completed_runs"] / tried, 1) if tried else None)


def sparks(runs: Sequence[TrainingRun], *, points: int) -> dict[uuid.UUID, list[float]]:
    """Return the course of the loss of each of some runs, in at most so many means: one query for all of them.

    What is known of a run as far as it has come is not asked for again: a list of long runs has hundreds of thousands of points.
    """
    keys = {run.pk: f"spark:{run.pk}:{run.attempt}:{run.step}:{points}" for run in runs}
    cached = cache.get_many(keys.values())
    found: dict[uuid.UUID, list[float]] = {pk: cached.get(key, []) for pk, key in keys.items()}
    asked = [pk for pk, key in keys.items() if key not in cached]
    rows = MetricPoint.objects.filter(run__in=asked, kind=MetricPoint.Kind.TRAIN)
    stretch = (Cast("step", BigIntegerField()) - 1) * points / Greatest(F("run__total_steps"), F("step"), 1)
    means = rows.annotate(stretch=stretch).order_by("run", "stretch").values_list("run", "stretch")
    for run, _, loss in means.annotate(mean=Avg("loss")):
        found[run].append(loss)
    cache.set_many({keys[pk]: found[pk] for pk in asked}, SPARK_SECONDS)
    return found
