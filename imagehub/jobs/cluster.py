"""A Django-Q cluster that can be supervised: it says it lives, tells its workers to stop, and leaves no orphans."""

import logging
import time
from types import FrameType

from django.db import DatabaseError, connections
from django_q.cluster import Cluster as DjangoQCluster
from setproctitle import setproctitle

from imagehub.jobs import parent_death, presence, stopping
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import is_ringing, ring

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class SupervisedCluster(DjangoQCluster):
    """Django-Q's cluster, whose signal handler does nothing but raise a flag that its workers see too.

    Django-Q would join its processes inside the handler, wherever the signal happened to interrupt.
    """

    def sig_handler(self, signum: int, frame: FrameType | None) -> None:
        stopping.request_stop()


def run_cluster(cluster: Cluster) -> None:
    """Run one cluster until it is asked to end by SIGTERM or SIGINT to this process.

    Raises:
        SystemExit: its sentinel died; whoever supervises this process starts it anew.
    """
    stopping.clear_stop()
    parent_death.tie_future_forks()
    presence.announce(cluster)
    connections.close_all()  # nothing that is forked may share this process's connection
    process = SupervisedCluster()
    process.start()
    setproctitle(f"qcluster {cluster} main")
    next_ring = 0.0
    while not stopping.stop_requested():
        if not process.sentinel.is_alive():
            raise SystemExit(f"The sentinel of the cluster {cluster} died.")
        if time.monotonic() >= next_ring:
            next_ring = time.monotonic() + presence.KEEP_ALIVE_SECONDS
            _keep_alive(cluster)
        time.sleep(POLL_SECONDS)
    process.stop()
    presence.withdraw()


def _keep_alive(cluster: Cluster) -> None:
    """Ring our own doorbell unless it rings already: the answer stamps our presence, and looks for lost jobs."""
    try:
        if not is_ringing(cluster):
            ring(cluster)
    except DatabaseError as error:
        logger.warning("The cluster %s could not ring its doorbell: %s", cluster, type(error).__name__)
        connections.close_all()
