"""How everything stands, for whoever looks after it: what the first page of the admin shows.

It goes through the registries and knows no app. Every part is bounded, however much there is: it is asked for every few seconds
by each page that is open, and found out once for all of them.
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import django
import django_q
from django.db import connection
from django.db.models import Count, JSONField, Model, TextField
from django.db.models.functions import Now
from django.utils import timezone

import imagehub
from imagehub import config, failover_cache, rate_limits
from imagehub.config_schema import RateLimitsConfig
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import Job, JobStatus, WorkerPresence
from imagehub.jobs.registry import JobKind, kinds
from imagehub.operations import disk, disk_report, health, purges, remembered
from imagehub.operations.disk_report import HostReport
from imagehub.operations.models import DiskAlert, DiskSnapshot, Purge
from imagehub.operations.queues import QueueStatus, queue_status

MOST_RUNS = 20
"""Runs of one kind that are shown, those that began first."""

MOST_GATHERED = 5
MOST_GONE = 20
"""Clusters that ended without a word; those that live are all shown."""

MOST_FAILURES = 8
MOST_CODES = 12
MOST_PURGES = 5

FAILURE_WINDOW = timedelta(hours=24)

COMMON_KEY, COMMON_SECONDS = "cockpit", 2
HEALTH_KEY, HEALTH_SECONDS = "cockpit-health", 2
"""Less than the pages let pass until they ask again. Health is by itself, as it may hang where a bucket does."""

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

    problems: Mapping[str, str]
    queues: Sequence[QueueStatus]
    runs: Sequence[Run]
    failures: Failures
    clusters: Sequence[ClusterState] | None
    disks: Sequence[HostReport] | None
    alerts: Sequence[DiskAlert]
    last_purges: Sequence[Purge] | None
    next_purges: Sequence[Due]
    limits: Sequence[Limit]
    is_cache_degraded: bool
    configuration: config.CacheState
    versions: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class _OfKind:
    """What there is of one kind of job."""

    queue: QueueStatus
    runs: Sequence[Run]
    failures: Failures


@dataclass(frozen=True)
class _Common:
    """What is the same for all who may see it."""

    kinds: Mapping[str, _OfKind]
    clusters: Sequence[ClusterState]
    disks: Sequence[HostReport]
    alerts: Sequence[DiskAlert]
    last_purges: Sequence[Purge]
    next_purges: Sequence[Due]
    limits: Sequence[Limit]


def look(may_view: MayView, *, is_anew: bool = True) -> Cockpit:
    """Return how everything stands.

    Args:
        may_view: tells whether rows of a model are shown to whoever asks.
        is_anew: whether it has to be as of now, for somebody who has just acted; else as somebody saw it two seconds ago.
    """
    find = remembered.anew if is_anew else remembered.lately
    common = find(COMMON_KEY, _common, seconds=COMMON_SECONDS)
    shown = [common.kinds[kind.name] for kind in kinds() if may_view(kind.model)]
    sees_disks, sees_purges = may_view(DiskSnapshot), may_view(Purge)
    return Cockpit(
        problems=remembered.lately(HEALTH_KEY, health.problems, seconds=HEALTH_SECONDS),
        queues=[of_kind.queue for of_kind in shown],
        runs=[run for of_kind in shown for run in of_kind.runs if may_view(type(run.row))],
        failures=_together([of_kind.failures for of_kind in shown]),
        clusters=common.clusters if may_view(WorkerPresence) else None,
        disks=common.disks if sees_disks else None,
        alerts=common.alerts if sees_disks else [],
        last_purges=common.last_purges if sees_purges else None,
        next_purges=common.next_purges if sees_purges else [],
        limits=common.limits,
        is_cache_degraded=failover_cache.is_degraded(),
        configuration=_configuration(),
        versions=_versions(),
    )


def _common() -> _Common:
    status = {queue.kind: queue for queue in queue_status(kinds())}
    return _Common(
        kinds={kind.name: _OfKind(status[kind.name], list(_runs(kind)), _failures(kind)) for kind in kinds()},
        clusters=list(_clusters()),
        disks=remembered.lately(DISKS_KEY, _disks, seconds=DISKS_SECONDS),
        alerts=list(disk.open_alerts()),
        last_purges=list(Purge.objects.order_by("-created_at", "-id")[:MOST_PURGES]),
        next_purges=[_due(kind) for kind in purges.kinds()],
        limits=_limits(),
    )


def _runs(kind: JobKind) -> Iterator[Run]:
    """Yield what runs of a kind, and before it the larger pieces of work that its jobs belong to."""
    for one in kind.gathered(MOST_GATHERED) if kind.gathered else ():
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


def _failures(kind: JobKind) -> Failures:
    since = timezone.now() - FAILURE_WINDOW
    failed = _narrow(kind.model).filter(status=JobStatus.FAILED, finished_at__gt=since)
    newest = failed.order_by("-finished_at", "-pk")[:MOST_FAILURES]
    by_code = failed.order_by().values_list("error_code").annotate(count=Count("*")).order_by("-count")
    return Failures(
        latest=[_run(kind, job, job.error_code, job.finished_at) for job in newest],
        counts=[(kind.name, code, count) for code, count in by_code[:MOST_CODES]],
    )


def _together(failures: Sequence[Failures]) -> Failures:
    latest = [run for one in failures for run in one.latest]
    counts = [count for one in failures for count in one.counts]
    latest.sort(key=lambda run: run.since or timezone.now(), reverse=True)
    counts.sort(key=lambda row: -row[2])
    return Failures(latest[:MOST_FAILURES], counts[:MOST_CODES])


def _clusters() -> Iterator[ClusterState]:
    """Yield the clusters that are needed and missing, those that live, and those that ended without a word within a day."""
    alive = list(presence.live().order_by("cluster", "-seen_at", "-id"))
    names = {row.cluster for row in alive}
    for name in sorted({Cluster.DEFAULT, *(kind.cluster for kind in kinds())} - names):
        yield ClusterState(name)
    gone = WorkerPresence.objects.filter(seen_at__lt=Now() - presence.STALE).order_by("-seen_at", "-id")
    for row, is_alive in [*((row, True) for row in alive), *((row, False) for row in gone[:MOST_GONE])]:
        yield ClusterState(row.cluster, row, is_alive, list(_told(row.facts))[:MOST_FACTS])


def _told(facts: Mapping[str, Any], about: str = "") -> Iterator[tuple[str, str]]:
    """Yield what a worker says of itself, as lines of a name and a text."""
    for name, value in sorted(facts.items()):  # PostgreSQL forgets their order
        name = f"{about} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from _told(value, name)
        elif value not in (None, "", []):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield name, text if len(text) <= LONGEST_FACT else f"{text[:LONGEST_FACT]}\N{HORIZONTAL ELLIPSIS}"


def _disks() -> list[HostReport]:
    """Return what is known of the disks of each machine, the fullest first."""
    return sorted(disk_report.reports(), key=_fullness, reverse=True)


def _fullness(report: HostReport) -> float:
    return max((system.fullness for system, _ in report.systems), default=0.0)


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
