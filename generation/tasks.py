"""What the generation cluster's workers do."""

from generation import services
from generation.models import GenerationJob
from imagehub.jobs.lease import Lease


def generate(job: GenerationJob, lease: Lease) -> None:
    """Make the pictures that one claimed job describes."""
    services.generate_images(job, lease)
