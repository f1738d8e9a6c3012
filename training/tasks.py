"""What Django-Q calls, and what workers do with jobs of this app."""

import logging

from django.db import DatabaseError

from imagehub.database import drop_connections
from imagehub.errors import ImageHubError
from imagehub.jobs.lease import Lease
from training.models import LabelingJob, TrainingRun
from training.services import inspections, labeling_work, promoting, supervising

logger = logging.getLogger(__name__)


def train(run: TrainingRun, lease: Lease) -> None:
    """Train the adapter that one claimed run describes."""
    supervising.train(run, lease)


def label(job: LabelingJob, lease: Lease) -> None:
    """Label the images that one claimed job names."""
    labeling_work.label_images(job, lease)


def inspect_albums(album_ids: list[str]) -> int:
    """Look at the images of albums that nobody has looked at yet; return how many there were.

    Errors end here: Django-Q would store their texts and tracebacks as they are, and the next preflight asks again.
    """
    try:
        return inspections.inspect_albums(album_ids)
    except ImageHubError as error:
        logger.warning("Images cannot be inspected: %s", error.code)
    except DatabaseError as error:
        logger.error("Images cannot be inspected: %s", type(error).__name__)
        drop_connections()
    return 0


def promote_waiting() -> int:
    """Make the adapters of checkpoints that were asked for; return how many there are now."""
    try:
        return promoting.promote_waiting()
    except DatabaseError as error:
        logger.error("Checkpoints cannot be promoted: %s", type(error).__name__)
        drop_connections()
    return 0
