"""What the generation cluster's workers do."""

from collections.abc import Callable

from generation import services
from generation.models import GenerationJob
from imagehub.jobs.lease import Lease


def generate(job: GenerationJob, lease: Lease) -> Callable[[], None]:
    """Make the pictures that one claimed job describes; return what is left to do."""
    return services.generate_images(job, lease)
