"""What training and labeling jobs took and brought, and how fast they are."""

from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import Measured
from training.models import LabelingJob, TrainingRun


def measure_run(run: TrainingRun) -> Measured:
    """Return the seconds of each phase, and the optimizer steps; nothing of a run that was not completed, for it may go on."""
    if run.status != JobStatus.COMPLETED:
        return Measured()
    return Measured(run.facts.get("seconds", {}), {"steps": run.step})


def speed_of_run(run: TrainingRun) -> float | None:
    """Return how many optimizer steps a second a run makes, by the median of its latest steps."""
    seconds = run.facts.get("seconds_per_step")
    return 1 / seconds if seconds else None


def measure_labeling(job: LabelingJob) -> Measured:
    """Return how many pictures were looked at."""
    return Measured(done={"images": job.step})
