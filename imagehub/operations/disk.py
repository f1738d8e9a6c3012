"""How full the disks are and with what: looked at by the clock, remembered, and told where it matters.

How full the file systems are is cheap to see and judged at each look. What the space is used for takes a walk through all files,
and is looked at each ``disk.sample_hours``. Each machine looks at its own disks.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from math import ceil

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import QuerySet
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from imagehub.config import get_config
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import WorkerPresence
from imagehub.operations import notify, purges
from imagehub.operations.filesystems import FileSystem, file_systems
from imagehub.operations.forecast import Forecast, days_until, growth_per_day
from imagehub.operations.models import DiskAlert, DiskSnapshot, Purge
from imagehub.operations.usage import usage_of_roots

logger = structlog.stdlib.get_logger(__name__)

HYSTERESIS_PERCENT = 2.0
"""So far below the threshold an alert is over: a disk that breathes at the threshold is one alert, and not one an hour."""

GONE = timedelta(days=2)
"""A machine that has taken no snapshot for so long, or for three times the time between two, is no longer shown."""

UNSEEN = timedelta(hours=1)
"""A machine of which nothing was seen for so long, neither a cluster nor a snapshot, has no alerts any more."""

FORECAST_DAYS = 30
"""What was before says little of how fast a disk fills now."""

DAYS_LEFT_SECONDS = 600

MOST_POINTS = 200
"""So many snapshots of one machine at most are read, evenly spread, however long ago the first was."""


def look(*, is_sample_due: bool | None = None) -> DiskSnapshot | None:
    """Judge how full the disks of this machine are, take a snapshot if one is due, and send what waits; return the snapshot.

    While a snapshot takes long, the next look sends what waits. Harmless when repeated, or twice at once.

    Args:
        is_sample_due: whether to take a snapshot, if not when the clock says so and no purge is at work.
    """
    judge(file_systems())
    try:
        return _sample(is_due=is_sample_due)
    finally:
        notify.deliver_waiting()


def _sample(*, is_due: bool | None) -> DiskSnapshot | None:
    if not (_is_due() and not _is_purging() if is_due is None else is_due):
        return None
    with _alone() as is_alone:
        if not is_alone or not (is_due or _is_due()):
            return None
        snapshot = take_snapshot()
    _forget_old()
    return snapshot


def take_snapshot() -> DiskSnapshot:
    """Look at all files of this machine, and remember what takes how much."""
    began = time.monotonic()
    usage = usage_of_roots()
    return DiskSnapshot.objects.create(
        host=socket.gethostname(),
        filesystems=[asdict(system) for system in file_systems()],
        usage=usage,
        seconds=round(time.monotonic() - began, 2),
    )


def latest(host: str = "") -> DiskSnapshot | None:
    """Return the newest snapshot, of one machine or of any."""
    rows = DiskSnapshot.objects.filter(host=host) if host else DiskSnapshot.objects.all()
    return rows.order_by("-taken_at", "-id").first()


def latest_of_each() -> list[DiskSnapshot]:
    """Return the newest snapshot of each machine that is still there, by name."""
    seen = DiskSnapshot.objects.filter(taken_at__gte=timezone.now() - _gone_after())
    hosts = sorted(set(seen.order_by().values_list("host", flat=True)))
    return [snapshot for host in hosts if (snapshot := latest(host)) is not None]


def history(host: str, *, days: int, most: int = MOST_POINTS) -> list[DiskSnapshot]:
    """Return the snapshots of a machine of so many days, the oldest first; of more than ``most`` some, evenly spread, and the newest."""
    since = timezone.now() - timedelta(days=days)
    rows = DiskSnapshot.objects.filter(host=host, taken_at__gte=since).order_by("taken_at", "id")
    step = max(1, ceil(rows.count() / most))
    newest_first = enumerate(rows.reverse().values_list("pk", flat=True).iterator())
    return list(rows.filter(pk__in=[pk for place, pk in newest_first if place % step == 0]))


def systems_of(snapshot: DiskSnapshot) -> list[FileSystem]:
    """Return the file systems of a snapshot."""
    return [FileSystem(**values) for values in snapshot.filesystems]


def forecast(system: FileSystem, snapshots: Iterable[DiskSnapshot]) -> Forecast:
    """Return what lies ahead of a file system: how it has grown over some snapshots of its machine, the oldest first, and until when it lasts."""
    points = [
        (snapshot.taken_at, values["used_bytes"])
        for snapshot in snapshots
        for values in snapshot.filesystems
        if values["name"] == system.name
    ]
    growth = growth_per_day(points)
    left = system.free_bytes - get_config().storage.minimum_free_bytes
    return Forecast(None if growth is None else round(growth), days_until(left, growth))


def days_left(snapshot: DiskSnapshot) -> dict[str, float]:
    """Return for how many days the file systems of a snapshot last, by name, as far as anybody can tell.

    It says the same until there is a new snapshot, and so is worked out once in a while.
    """
    key = f"disk-days-left:{snapshot.pk}"
    found: dict[str, float] | None = cache.get(key)
    if found is None:
        before = history(snapshot.host, days=FORECAST_DAYS)
        ahead = {system.name: forecast(system, before).days_left for system in systems_of(snapshot)}
        found = {name: days for name, days in ahead.items() if days is not None}
        cache.set(key, found, DAYS_LEFT_SECONDS)
    return found


def open_alerts() -> QuerySet[DiskAlert]:
    """Return the file systems that are too full, the newest alert first."""
    return DiskAlert.objects.filter(cleared_at=None).order_by("-raised_at", "-id")


def judge(systems: Sequence[FileSystem]) -> None:
    """Raise an alert for each file system of this machine that has become too full, and clear those that are over, each once."""
    host = socket.gethostname()
    threshold = get_config().disk.alert_percent
    by_root = {root: system for system in systems for root in system.roots}
    raised = {alert: _meant(alert, by_root) for alert in open_alerts().filter(host=host)}
    for system in systems:
        if system.fullness >= threshold and system not in raised.values():
            _raise(host, system, threshold)
    for alert, now in raised.items():
        if now is not None and now.fullness < threshold - HYSTERESIS_PERCENT:
            _clear(alert, now)
    since = timezone.now() - UNSEEN
    looked_at = DiskSnapshot.objects.filter(taken_at__gte=since).values("host")
    at_work = WorkerPresence.objects.filter(seen_at__gte=since).values("host")
    others = open_alerts().filter(raised_at__lt=since).exclude(host=host)
    for alert in others.exclude(host__in=looked_at).exclude(host__in=at_work):
        _clear(alert, None)


def _meant(alert: DiskAlert, by_root: Mapping[str, FileSystem]) -> FileSystem | None:
    """Return the file system of an alert as it is now; None where it cannot be looked at now, and so is no better.

    Roots have names that stay. Of several on it one may be out of reach for a while, and devices have other numbers after each start.
    """
    return next((by_root[root] for root in alert.roots if root in by_root), None)


def overdue() -> timedelta | None:
    """Return for how long nobody has looked at what takes how much space, if that is twice as long as it should be."""
    newest = latest()
    if newest is not None:
        since = newest.taken_at
    else:  # none yet: somebody should have looked for as long as there has been a cluster to do it
        clusters = presence.live(Cluster.DEFAULT).order_by("started_at")
        since = clusters.values_list("started_at", flat=True).first() or timezone.now()
    age = timezone.now() - since
    return age if age > 2 * _interval() else None


def _raise(host: str, system: FileSystem, threshold: float) -> None:
    percent = round(system.fullness, 1)
    facts = {"host": host, "filesystem": system.name, "percent": percent, "threshold": threshold}
    said = (
        f"The disk of {host} with {system.name} is {percent} % full (an alert from {threshold:g} % on): "
        f"{filesizeformat(system.free_bytes)} are left."
    )
    with transaction.atomic():
        # The constraint lets one of two who see it at once be the first.
        _, is_new = DiskAlert.objects.get_or_create(
            host=host,
            filesystem=system.name,
            cleared_at=None,
            defaults={"roots": system.roots, "percent_used": percent, "threshold_percent": threshold},
        )
        if is_new:
            notify.announce("disk.alert", said, facts | {"free_bytes": system.free_bytes})
    if is_new:
        logger.warning("disk.alert", **facts)


def _clear(alert: DiskAlert, system: FileSystem | None) -> None:
    percent = round(system.fullness, 1) if system else None
    now = f"is {percent} % full" if system else "belongs to a machine that is no longer there"
    facts = {
        "host": alert.host,
        "filesystem": alert.filesystem,
        "percent": percent,
        "threshold": alert.threshold_percent,
    }
    with transaction.atomic():
        is_ours = DiskAlert.objects.filter(pk=alert.pk, cleared_at=None).update(cleared_at=timezone.now())
        if is_ours:
            said = f"The alert is over: the disk of {alert.host} with {alert.filesystem} {now}."
            notify.announce("disk.alert_cleared", said, facts)
    if is_ours:
        logger.info("disk.alert_cleared", is_machine_there=system is not None, **facts)


def _interval() -> timedelta:
    return timedelta(hours=get_config().disk.sample_hours)


def _gone_after() -> timedelta:
    return max(GONE, 3 * _interval())


def _is_purging() -> bool:
    """Tell whether one of the two workers of the cluster ``default`` has a purge at hand: the other one is for all the rest."""
    kinds = [kind.name for kind in purges.kinds(cluster=Cluster.DEFAULT)]
    rows = Purge.objects.filter(kind__in=kinds, state=Purge.State.WORKING)
    since = timezone.now() - purges.LOST
    return rows.filter(worked_at__gte=since).exclude(origin=Purge.Origin.COMMAND).exists()


def _is_due() -> bool:
    """Tell whether the last snapshot is of an earlier turn: at 0, 6, 12 and 18 hours UTC, if there is one each six hours."""
    newest = latest(socket.gethostname())

    def turn(at: datetime) -> int:
        return int(at.timestamp() // _interval().total_seconds())

    return newest is None or turn(newest.taken_at) < turn(timezone.now())


@contextmanager
def _alone() -> Iterator[bool]:
    """Tell whether nobody else on this machine is at it, and keep others away. A lock on a folder takes no room on a full disk."""
    descriptor = os.open(settings.VAR_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _forget_old() -> None:
    since = timezone.now() - timedelta(days=get_config().disk.remembered_days)
    DiskSnapshot.objects.filter(taken_at__lt=since).delete()
    DiskAlert.objects.filter(cleared_at__lt=since).delete()
    notify.forget_old()
