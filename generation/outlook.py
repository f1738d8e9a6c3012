"""How long generation jobs take here, and what keeps some from being made."""

from collections.abc import Sequence
from statistics import median
from uuid import UUID

from django.core.cache import cache
from django.db.models import Exists, OuterRef

from generation.models import GenerationJob, SetRun
from generation.services.hindrances import find_hindrances
from generation.services.set_runs import progress_of
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import Gathered
from training.models import BaseModel
from training.services.loadable import reasons_against

MEASURED_JOBS = 25
"""So many of the latest jobs of a base model tell its pace. Their median hardly notices the one that had to load it."""

MEASURED_EVERY = 15
"""Seconds for which a measured pace is good."""


def set_runs_under_way(most: int) -> list[Gathered]:
    """Return how far the newest of those set runs are that still have pictures to make."""
    ahead = GenerationJob.objects.filter(
        set_run=OuterRef("pk"), status__in=(JobStatus.QUEUED, JobStatus.RUNNING)
    )
    # A run whose outcome is known has ended: without that, each that ever was would be looked into.
    open_runs = SetRun.objects.filter(Exists(ahead), outcome__isnull=True)
    runs = list(open_runs.order_by("-created_at", "-id")[:most])
    progress = progress_of(runs)
    return [
        Gathered(
            row=run,
            progress=int(100 * progress[run.pk].share),
            said=f"{progress[run.pk].count(JobStatus.COMPLETED)} of {run.total} pictures",
        )
        for run in runs
    ]


def work(job: GenerationJob) -> int:
    """Return how much there is to do, in pixels that are denoised once."""
    return job.n * job.steps * job.width * job.height


def estimate_seconds(jobs: Sequence[GenerationJob]) -> dict[UUID, float]:
    """Return how many seconds each job is likely to take, as far as its base model has made something lately."""
    paces = {pk: _pace(pk) for pk in {job.base_model_id for job in jobs}}
    return {job.pk: work(job) * pace for job in jobs if (pace := paces[job.base_model_id]) is not None}


def _pace(base_model: UUID) -> float | None:
    """Return the seconds for one pixel and step, or None where nothing was measured."""
    key = f"pace:{base_model}"
    pace = cache.get(key)
    if pace is None:
        pace = _measured_pace(base_model)
        cache.set(key, pace, MEASURED_EVERY)
    return pace or None


def _measured_pace(base_model: UUID) -> float:
    latest = (
        GenerationJob.objects.filter(
            status=JobStatus.COMPLETED, base_model=base_model, attempt=1, started_at__isnull=False
        )
        .only("started_at", "finished_at", "n", "steps", "width", "height")
        .newest_first()[:MEASURED_JOBS]
    )
    return median([(job.finished_at - job.started_at).total_seconds() / work(job) for job in latest] or [0.0])


def obstacles(jobs: Sequence[GenerationJob]) -> dict[UUID, str]:
    """Say of each job that cannot be made as things are, why not."""
    hindrances = find_hindrances(jobs)
    models = BaseModel.objects.in_bulk({job.base_model_id for job in jobs})
    reasons = reasons_against(models.values(), Cluster.GENERATION)
    found = {}
    for job in jobs:
        if hindrance := hindrances.get(job.pk):
            found[job.pk] = hindrance.detail
        elif reason := reasons.get(job.base_model_id):
            found[job.pk] = reason
    return found
