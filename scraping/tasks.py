"""What Django-Q calls, and what workers do with jobs of this app."""

import logging

from django.db import DatabaseError

from imagehub.database import drop_connections
from imagehub.errors import ImageHubError
from imagehub.jobs.lease import Lease
from scraping.models import ScrapeJob
from scraping.services import crawling, reviewing, shared_store

logger = logging.getLogger(__name__)


def scrape(job: ScrapeJob, lease: Lease) -> None:
    """Carry out one claimed crawl."""
    crawling.crawl(job, lease)


def forget_hosts() -> int:
    """Delete what nobody has asked for in a month; return how many rows."""
    try:
        return shared_store.forget_hosts()
    except DatabaseError as error:
        logger.error("Hosts cannot be forgotten: %s", type(error).__name__)
        drop_connections()
    return 0


def take_in_approved(job_id: str = "") -> int:
    """Take in what was approved of a crawl, or of all of them; return how many pictures.

    Errors end here: Django-Q would store their texts and tracebacks as they are, and the next look finds what is left.
    """
    taken = 0
    try:
        jobs = reviewing.crawls_with_approved()
        for job in jobs.filter(pk=job_id) if job_id else jobs:
            taken += _take_in(job)
    except DatabaseError as error:
        logger.error("Approved pictures cannot be taken in: %s", type(error).__name__)
        drop_connections()
    return taken


def _take_in(job: ScrapeJob) -> int:
    try:
        return reviewing.take_in_approved(job)
    except DatabaseError:
        raise
    except Exception as error:  # noqa: BLE001 - what is wrong with one crawl keeps no other waiting
        what = error.code if isinstance(error, ImageHubError) else type(error).__name__
        logger.error("Approved pictures of the crawl %s cannot be taken in: %s", job.pk, what)
        return 0
