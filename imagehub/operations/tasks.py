"""What Django-Q calls."""

import logging

from django.db import DatabaseError

from imagehub.database import drop_connections
from imagehub.jobs.clusters import Cluster
from imagehub.operations import disk, purges

logger = logging.getLogger(__name__)


def purge_waiting(cluster: str) -> int:
    """Do the purges that were asked for of a cluster; return how many."""
    try:
        return purges.purge_waiting(Cluster(cluster))
    except DatabaseError as error:
        return _failed(error)


def see_to_purges() -> int:
    """Do the purges whose message or worker was lost; return how many."""
    try:
        return purges.see_to_purges()
    except DatabaseError as error:
        return _failed(error)


def look_at_disks() -> None:
    """See how full the disks are, and now and then with what; tell operators what they need to know."""
    try:
        disk.look()
    except DatabaseError as error:
        logger.error("What was seen of the disks cannot be noted: %s", type(error).__name__)
        drop_connections()


def _failed(error: DatabaseError) -> int:
    logger.error("Purges cannot be done: %s", type(error).__name__)
    drop_connections()
    return 0
