"""A Django-Q cluster that can be supervised: it says it lives, tells its workers to stop, and leaves no orphans."""

import logging
import os
import time
from multiprocessing.process import BaseProcess
from types import FrameType

from django.db import Error as DatabaseError
from django_q import cluster as django_q_cluster
from setproctitle import setproctitle

from imagehub.database import drop_connections
from imagehub.jobs import parent_death, presence, stopping
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import is_ringing, ring
from imagehub.jobs.systemd import beat, notify

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class SupervisedSentinel(django_q_cluster.Sentinel):
    """Django-Q's guard over the processes of a cluster, which does not replace a monitor that was killed.

    A monitor waits for results with the lock of their queue in its hand. The one in its place would wait for that lock for
    ever: no message would be taken from the queue any more, and the cluster could not be stopped in order.
    """

    def reincarnate(self, process: BaseProcess) -> None:
        if process is self.monitor and (process.exitcode or 0) < 0:
            logger.error("The monitor of a cluster was killed; the cluster ends, to be started anew")
            os._exit(1)  # the main process sees it
        super().reincarnate(process)


django_q_cluster.Sentinel = SupervisedSentinel  # the cluster has no other place where it could be named


class SupervisedCluster(django_q_cluster.Cluster):
    """Django-Q's cluster, whose signal handler does nothing but raise a flag that its workers see too.

    Django-Q would join its processes inside the handler, wherever the signal happened to interrupt.
    """

    def sig_handler(self, signum: int, frame: FrameType | None) -> None:
        stopping.request_stop()


def run_cluster(cluster: Cluster) -> None:
    """Run one cluster until it is asked to end by SIGTERM or SIGINT to this process.

    Raises:
        SystemExit: its sentinel died; whoever supervises this process starts it anew. Where its workers do not answer
            their doorbell, the process ends at once instead.
    """
    stopping.clear_stop()
    parent_death.tie_future_forks()
    presence.announce(cluster)
    drop_connections()  # nothing that is forked may share this process's connection
    process = SupervisedCluster()
    process.start()
    setproctitle(f"qcluster {cluster} main")
    watch = presence.Watch()
    next_look = 0.0
    notify("READY=1")
    while not stopping.stop_requested():
        if not process.sentinel.is_alive():
            raise SystemExit(f"The sentinel of the cluster {cluster} died.")
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + presence.KEEP_ALIVE_SECONDS
            _keep_alive(cluster, watch)
            beat()
        time.sleep(POLL_SECONDS)
    notify("STOPPING=1")
    process.stop()
    presence.withdraw()


def _keep_alive(cluster: Cluster, watch: presence.Watch) -> None:
    """Ring our own doorbell unless it rings already, and end where nobody answers it.

    The answer stamps our presence, and looks for lost jobs. A worker that was killed while it held the lock of
    Django-Q's queue leaves a cluster that looks alive and takes nothing, and that cannot be stopped in order.
    """
    try:
        if not is_ringing(cluster):
            ring(cluster)
        is_silent = watch.is_silent(os.getpid())
    except DatabaseError as error:
        logger.warning("The cluster %s could not ring its doorbell: %s", cluster, type(error).__name__)
        drop_connections()
        watch.be_patient()
        return
    if is_silent:
        logger.error("The workers of the cluster %s do not answer; it ends, to be started anew", cluster)
        os._exit(1)  # the kernel takes its processes along: see parent_death
