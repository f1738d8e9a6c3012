"""What a generation job that has ended took and brought."""

from generation.models import GenerationJob
from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import Measured

SUM_OF_PHASES = "total"


def measure(job: GenerationJob) -> Measured:
    """Return the seconds of each phase of its last picture, and how many pictures and denoising steps it has made."""
    seconds = {
        phase: value
        for phase, value in job.timings.items()
        if phase != SUM_OF_PHASES and isinstance(value, int | float)
    }
    images = job.n if job.status == JobStatus.COMPLETED else job.step // job.steps
    return Measured(seconds, {"images": images, "steps": job.step})
