"""What Django-Q calls, and what workers do with jobs of this app."""

import logging

from django.db import DatabaseError

from imagehub.database import drop_connections
from imagehub.jobs.lease import Lease
from imagehub.operations import purges
from scraping.models import ScrapeJob
from scraping.services import crawling, shared_store
from scraping.services.purging import PURGE

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


def purge_by_the_clock() -> int:
    """Delete what is left of crawls that ended as long ago as is configured; return how many purges that was."""
    try:
        return purges.purge_by_the_clock(PURGE)
    except DatabaseError as error:
        logger.error("Crawls cannot be purged: %s", type(error).__name__)
        drop_connections()
    return 0
