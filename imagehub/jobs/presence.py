"""Signs of life of clusters: which are there, and which still answer their doorbell."""

import os
import socket
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import Error as DatabaseError
from django.db.models import QuerySet
from django.db.models.functions import Now

from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import WorkerPresence

KEEP_ALIVE_SECONDS = 5.0
"""How often a cluster rings its own doorbell, so that silence means trouble."""

STALE = timedelta(seconds=30)
"""A cluster not seen for this long is not counted as alive, and its supervisor starts it anew."""

STAMP_SECONDS = 2.0

STARTUP_SECONDS = 60.0
"""A cluster younger than this is not yet expected to answer its doorbell."""

GAP_SECONDS = 15.0

WITHOUT_ROOM = "without_room"
"""The fact that tells which kinds of job a worker does not take, because a disk is full, and why."""

_current: uuid.UUID | None = None
_last_stamp = 0.0


def announce(cluster: Cluster) -> WorkerPresence:
    """Write the row of the cluster that this process is about to fork."""
    global _current
    row = WorkerPresence.objects.create(cluster=cluster.value, host=socket.gethostname(), pid=os.getpid())
    _current = row.pk
    return row


def stamp() -> None:
    """Say that this cluster's workers still work; at most one write in two seconds."""
    global _last_stamp
    if _current is not None and time.monotonic() - _last_stamp >= STAMP_SECONDS:
        _last_stamp = time.monotonic()
        WorkerPresence.objects.filter(pk=_current).update(seen_at=Now())


def publish(facts: Mapping[str, Any]) -> None:
    """Say what this cluster's workers can do, and how they fare. What was said before is replaced."""
    if _current is not None:
        WorkerPresence.objects.filter(pk=_current).update(facts=dict(facts))


def withdraw() -> None:
    """Remove the row of a cluster that ends properly."""
    with suppress(DatabaseError):  # it is forgotten later
        WorkerPresence.objects.filter(pk=_current).delete()


def live(cluster: Cluster | None = None) -> QuerySet[WorkerPresence]:
    """Return the clusters that were seen lately, of one name or of all."""
    rows = WorkerPresence.objects.filter(seen_at__gte=Now() - STALE)
    return rows if cluster is None else rows.filter(cluster=cluster.value)


class Watch:
    """Judges whether a cluster has fallen silent. Patient after anything that may have kept it from stamping."""

    def __init__(self) -> None:
        self._last_look = time.monotonic()
        self._patient_until = self._last_look + STARTUP_SECONDS

    def be_patient(self) -> None:
        """Give the cluster time to stamp again: the database was away."""
        self._patient_until = max(self._patient_until, time.monotonic() + STALE.total_seconds())

    def is_silent(self, pid: int) -> bool:
        """Tell whether the cluster with this main process on this machine should have stamped and has not."""
        now = time.monotonic()
        if now - self._last_look > GAP_SECONDS:  # this machine slept, and so did the cluster
            self.be_patient()
        self._last_look = now
        if now < self._patient_until:
            return False
        return not live().filter(host=socket.gethostname(), pid=pid).exists()


def forget_dead() -> int:
    """Delete the rows of clusters that ended without a word long ago."""
    return WorkerPresence.objects.filter(seen_at__lt=Now() - timedelta(days=1)).delete()[0]
