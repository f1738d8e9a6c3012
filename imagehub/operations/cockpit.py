"""How everything stands, for whoever looks after it: what the first page of the admin shows.

It goes through the registries and knows no app. Every part is bounded, however much there is: it is asked for every few seconds.
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import django
import django_q
from django.core.cache import cache
from django.db import connection
from django.db.models import BooleanField, Count, ExpressionWrapper, JSONField, Model, Q, TextField
from django.db.models.functions import Now
from django.utils import timezone

import imagehub
from imagehub import config, failover_cache, rate_limits
from imagehub.config_schema import RateLimitsConfig
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import Job, JobStatus, WorkerPresence
from imagehub.jobs.registry import JobKind, kinds
from imagehub.operations import disk, health, purges
from imagehub.operations.models import DiskAlert, DiskSnapshot, Purge
from imagehub.operations.queues import QueueStatus, queue_status

MOST_RUNS = 20
"""Runs of one kind that are shown, those that began first."""

MOST_GATHERED = 5
MOST_CLUSTERS = 50
MOST_FAILURES = 8
MOST_CODES = 12
MOST_PURGES = 5

FAILURE_WINDOW = timedelta(hours=24)

DISKS_KEY, DISKS_SECONDS = "cockpit-disks", 60
"""Snapshots are hours apart, and to foretell from a hundred of them takes a while."""

MOST_FACTS, LONGEST_FACT = 12, 120

MayView = Callable[[type[Model]], bool]


@dataclass(frozen=True)
class Run:
    """A piece of work under way."""

    kind: str
    row: Model
    progress: int
    """Percent."""
    said: str
    eta_seconds: float | None = None
    owner: str = ""
    since: datetime | None = None
    is_stopping: bool = False

    @property
    def name(self) -> str:
        """What it is called; of an id the part that differs."""
        return str(self.row).replace(str(self.row.pk), str(self.row.pk)[-12:])


@dataclass(frozen=True)
class ClusterState:
    """A cluster that was seen within a day, or one that is needed and is not there."""

    name: str
    row: WorkerPresence | None = None
    is_alive: bool = False
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Failures:
    """What has failed in the last 24 hours."""

    latest: Sequence[Run]
    counts: Sequence[tuple[str, str, int]]
    """Kind, code and number; the most frequent first."""


@dataclass(frozen=True)
class Disk:
    """A file system of a machine when it was last looked at."""

    host: str
    name: str
    free_bytes: int
    percent_used: float
    taken_at: datetime
    days_left: float | None = None
    """Until it is full, as it grows now; None where nobody can tell."""


@dataclass(frozen=True)
class Due:
    """A kind of purge, and when the clock does it next."""

    kind: str
    days: int
    """How old things are that it deletes; 0: it never does."""
    at: datetime | None


@dataclass(frozen=True)
class Limit:
    """A rate limit in force."""

    group: str
    limit: int
    window_seconds: int
    rejections: int


@dataclass(frozen=True)
class Cockpit:
    """All of it. What somebody may not see is None, or left out."""

    at: datetime
    problems: Mapping[str, str]
    queues: Sequence[QueueStatus]
    runs: Sequence[Run]
    failures: Failures
    clusters: Sequence[ClusterState] | None
    disks: Sequence[Disk] | None
    alerts: Sequence[DiskAlert]
    last_purges: Sequence[Purge] | None
    next_purges: Sequence[Due]
    limits: Sequence[Limit]
    is_cache_degraded: bool
    configuration: config.CacheState
    versions: Sequence[tuple[str, str]]


def look(may_view: MayView) -> Cockpit:
    """Return how everything stands now.

    Args:
        may_view: tells whether rows of a model are shown to whoever asks.
    """
    shown = [kind for kind in kinds() if may_view(kind.model)]
    sees_disks, sees_purges = may_view(DiskSnapshot), may_view(Purge)
    return Cockpit(
        at=timezone.now(),
        problems=health.problems(),
        queues=queue_status(shown),
        runs=[run for kind in shown for run in _runs(kind, may_view)],
        failures=_failures(shown),
        clusters=list(_clusters()) if may_view(WorkerPresence) else None,
        disks=_disks() if sees_disks else None,
        alerts=list(disk.open_alerts()) if sees_disks else [],
        last_purges=list(Purge.objects.order_by("-created_at", "-id")[:MOST_PURGES]) if sees_purges else None,
        next_purges=[_due(kind) for kind in purges.kinds()] if sees_purges else [],
        limits=_limits(),
        is_cache_degraded=failover_cache.is_degraded(),
        configuration=_configuration(),
        versions=_versions(),
    )


def _runs(kind: JobKind, may_view: MayView) -> Iterator[Run]:
    """Yield what runs of a kind, and before it the larger pieces of work that its jobs belong to."""
    for one in kind.gathered(MOST_GATHERED) if kind.gathered else ():
        if may_view(type(one.row)):
            yield Run(one.row._meta.verbose_name or "", one.row, one.progress, one.said)
    running = _narrow(kind.model).filter(status=JobStatus.RUNNING)
    for job in running.order_by("started_at", "pk")[:MOST_RUNS]:
        yield _run(kind, job, job.message, job.started_at)


def _run(kind: JobKind, job: Job, said: str, since: datetime | None) -> Run:
    return Run(
        kind=kind.name,
        row=job,
        progress=job.progress,
        said=said,
        eta_seconds=job.eta_seconds,
        owner=job.owner.get_username(),
        since=since,
        is_stopping=job.cancel_requested_at is not None,
    )


def _narrow(model: type[Job]) -> Any:
    """Return the jobs without what may be long of them: recipes, prompts, traces."""
    long = [field.name for field in model._meta.concrete_fields if isinstance(field, JSONField | TextField)]
    return model._default_manager.select_related("owner").defer(*long)


def _failures(shown: Sequence[JobKind]) -> Failures:
    since = timezone.now() - FAILURE_WINDOW
    latest: list[Run] = []
    counts: list[tuple[str, str, int]] = []
    for kind in shown:
        failed = _narrow(kind.model).filter(status=JobStatus.FAILED, finished_at__gt=since)
        newest = failed.order_by("-finished_at", "-pk")[:MOST_FAILURES]
        latest += [_run(kind, job, job.error_code, job.finished_at) for job in newest]
        by_code = failed.order_by().values_list("error_code").annotate(count=Count("*"))
        counts += [(kind.name, code, count) for code, count in by_code]
    latest.sort(key=lambda run: run.since or since, reverse=True)
    counts.sort(key=lambda row: -row[2])
    return Failures(latest[:MOST_FAILURES], counts[:MOST_CODES])


def _clusters() -> Iterator[ClusterState]:
    """Yield the clusters that are needed and missing, then those that were seen within a day."""
    is_alive = ExpressionWrapper(Q(seen_at__gte=Now() - presence.STALE), output_field=BooleanField())
    rows = WorkerPresence.objects.annotate(is_alive=is_alive)
    seen = list(rows.order_by("cluster", "-seen_at", "-id")[:MOST_CLUSTERS])
    alive = {row.cluster for row in seen if row.is_alive}
    for name in sorted({Cluster.DEFAULT, *(kind.cluster for kind in kinds())} - alive):
        yield ClusterState(name)
    for row in seen:
        yield ClusterState(row.cluster, row, row.is_alive, list(_told(row.facts))[:MOST_FACTS])


def _told(facts: Mapping[str, Any], about: str = "") -> Iterator[tuple[str, str]]:
    """Yield what a worker says of itself, as lines of a name and a text."""
    for name, value in sorted(facts.items()):  # PostgreSQL forgets their order
        name = f"{about} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from _told(value, name)
        elif value not in (None, "", []):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield name, text if len(text) <= LONGEST_FACT else f"{text[:LONGEST_FACT]}\N{HORIZONTAL ELLIPSIS}"


def _disks() -> list[Disk]:
    """Return the file systems of each machine, the fullest first, as its last snapshot has them, or had a minute ago."""
    found: list[Disk] | None = cache.get(DISKS_KEY)
    if found is None:
        found = sorted(_disks_anew(), key=lambda one: -one.percent_used)
        cache.set(DISKS_KEY, found, DISKS_SECONDS)
    return found


def _disks_anew() -> Iterator[Disk]:
    for snapshot in disk.latest_of_each():
        past = disk.history(snapshot.host, days=disk.FORECAST_DAYS)
        for system in disk.systems_of(snapshot):
            yield Disk(
                host=snapshot.host,
                name=system.name,
                free_bytes=system.free_bytes,
                percent_used=system.percent_used,
                taken_at=snapshot.taken_at,
                days_left=disk.forecast(system, past).days_left,
            )


def _due(kind: purges.PurgeKind) -> Due:
    days = kind.retention()
    return Due(kind.name, days, kind.next_due(timezone.now()) if days else None)


def _limits() -> list[Limit]:
    """Return the limits that hold, and how often each has said no."""
    rules, refused = config.get_config().rate_limits, rate_limits.rejections()
    named = ((name, getattr(rules, name)) for name in RateLimitsConfig.model_fields)
    return [
        Limit(name, rule.limit, rule.window_seconds, refused.get(name, 0)) for name, rule in named if rule.limit > 0
    ]  # fmt: skip


def _configuration() -> config.CacheState:
    config.get_config()  # whoever looks wants to know of the file as it is
    return config.cache_state()


def _versions() -> list[tuple[str, str]]:
    if connection.vendor == "postgresql":
        major, minor = divmod(connection.pg_version, 10_000)  # type: ignore[attr-defined]
        database = ("PostgreSQL", f"{major}.{minor}")
    else:
        database = ("SQLite", ".".join(map(str, connection.Database.sqlite_version_info)))  # type: ignore[attr-defined]
    return [
        ("ImageHub", imagehub.__version__),
        ("Python", platform.python_version()),
        ("Django", django.get_version()),
        ("Django-Q2", ".".join(map(str, django_q.VERSION))),
        database,
    ]
