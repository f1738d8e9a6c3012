"""What a crawl that has ended brought."""

from imagehub.jobs.registry import Measured
from scraping.models import ScrapeJob


def measure(job: ScrapeJob) -> Measured:
    """Return how many pages were read and how many pictures were kept."""
    return Measured(done={"pages": job.pages, "images": job.images_saved})
