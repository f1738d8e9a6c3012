"""How long training runs take here, and what keeps some from being trained."""

from collections.abc import Sequence
from statistics import median
from typing import Any
from uuid import UUID

from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from training.models import BaseModel, TrainingRun
from training.services.loadable import loadable_here, reasons_against

MEASURED_RUNS = 10
"""So many of the latest runs on a base model tell how long a step takes."""


def estimate_seconds(runs: Sequence[TrainingRun]) -> dict[UUID, float]:
    """Return how many seconds each run is likely to take still: by what its base model took lately, or as was expected."""
    paces = {pk: _seconds_per_step(pk) for pk in {run.base_model_id for run in runs}}
    found = {}
    for run in runs:
        expected = run.estimate.get("seconds")
        left = max(0, run.total_steps - run.step)
        if (pace := paces[run.base_model_id]) is not None:
            found[run.pk] = left * pace
        elif expected is not None and run.total_steps:
            found[run.pk] = expected * left / run.total_steps
    return found


def _seconds_per_step(base_model: UUID) -> float | None:
    """Return what was measured: not what lies between beginning and end, for a run that goes on begins anew."""
    measured = TrainingRun.objects.filter(
        status=JobStatus.COMPLETED, base_model=base_model, facts__seconds_per_step__gt=0
    )
    latest = measured.newest_first().values_list("facts__seconds_per_step", flat=True)[:MEASURED_RUNS]
    return median(latest) if latest else None


def obstacles(runs: Sequence[TrainingRun]) -> dict[UUID, str]:
    """Say of each run that cannot be trained as things are, why not."""
    models = BaseModel.objects.in_bulk({run.base_model_id for run in runs})
    reasons = reasons_against(models.values(), Cluster.TRAINING)
    found = {}
    for run in runs:
        if not models[run.base_model_id].is_enabled:
            found[run.pk] = f"The base model “{models[run.base_model_id]}” is disabled."
        elif reason := reasons.get(run.base_model_id):
            found[run.pk] = reason
    return found


def worker_facts() -> dict[str, Any]:
    """Return the names of the base models that this machine can load."""
    return {"models": loadable_here()}
