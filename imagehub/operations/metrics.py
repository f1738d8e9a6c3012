"""What Prometheus reads: how the system stands, from the database and the shared cache, whichever web process answers.

Names and units are Prometheus' own conventions (https://prometheus.io/docs/practices/naming/). There is no label whose values
users choose. What each metric means stands in docs/operations.md.
"""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from django.core.cache import cache
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

import imagehub
from imagehub import failover_cache, rate_limits, request_counts
from imagehub.config import get_config
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.pauses import paused_kinds
from imagehub.jobs.registry import kinds
from imagehub.operations import disk, purges, tallies
from imagehub.operations.models import Purge
from imagehub.operations.queues import depth

logger = logging.getLogger(__name__)

FRESH_SECONDS = 5
"""How long a page is good, however many ask for it."""

PAGE_KEY = "metrics-page"


def page() -> bytes:
    """Return all metrics in Prometheus' text format, as they are or were a moment ago."""
    found: bytes | None = cache.get(PAGE_KEY)
    if found is None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Everything())  # type: ignore[arg-type]
        found = generate_latest(registry)
        cache.set(PAGE_KEY, found, FRESH_SECONDS)
    return found


class _Everything:
    """Collects part by part, so that what breaks one takes no other along."""

    def collect(self) -> Iterator[Metric]:
        success = _gauge(
            "scrape_collector_success", "Whether this part of the page could be read.", "collector"
        )
        duration = _gauge(
            "scrape_collector_duration_seconds",
            "How long it took to read this part of the page.",
            "collector",
        )
        for collector in COLLECTORS:
            name, began = collector.__name__.strip("_"), time.perf_counter()
            try:
                found = list(collector())
            except Exception as error:  # noqa: BLE001 - what broke it is in the log, and the page says that it did
                logger.warning("The metrics of %s cannot be read: %s", name, type(error).__name__)
                found = []
                success.add_metric([name], 0)
            else:
                success.add_metric([name], 1)
            duration.add_metric([name], time.perf_counter() - began)
            yield from found
        yield success
        yield duration


def _build() -> Iterator[Metric]:
    build = _gauge("build_info", "Which version answers.", "version")
    build.add_metric([imagehub.__version__], 1)
    yield build


def _queues() -> Iterator[Metric]:
    jobs = _gauge("queue_jobs", "Jobs that wait or run.", "kind", "status")
    oldest = _gauge(
        "queue_oldest_age_seconds", "Since when the job waits that has waited longest; 0: none waits.", "kind"
    )
    paused = _gauge("queue_paused", "Whether no worker takes a job.", "kind")
    pauses, now = paused_kinds(), timezone.now()
    for kind in kinds():
        under_way = depth(kind, now)
        jobs.add_metric([kind.name, "queued"], under_way.queued)
        jobs.add_metric([kind.name, "running"], under_way.running)
        oldest.add_metric([kind.name], under_way.oldest_age_seconds or 0)
        paused.add_metric([kind.name], kind.name in pauses)
    yield from (jobs, oldest, paused)


def _speeds() -> Iterator[Metric]:
    speed = _gauge("job_steps_per_second", "Steps a second of the jobs that run, together.", "kind")
    for kind in kinds():
        if kind.speed is not None:
            running = kind.model._default_manager.filter(status=JobStatus.RUNNING)
            speed.add_metric([kind.name], sum(kind.speed(job) or 0 for job in running))
    yield speed


def _jobs() -> Iterator[Metric]:
    found = tallies.read()
    ended = _counter("jobs_ended", "Jobs that have ended.", "kind", "status")
    failures = _counter("job_failures", "Jobs that have failed.", "kind", "code")
    statuses = dict.fromkeys(((kind.name, status) for kind in kinds() for status in JobStatus.FINISHED), 0.0)
    statuses |= {(kind, status): value for kind, status, value in found.counts(tallies.ENDED)}
    for labels, value in statuses.items():
        ended.add_metric(labels, value)
    for kind, code, value in found.counts(tallies.FAILURES):
        failures.add_metric([kind, code], value)
    yield from (ended, failures)

    done: dict[str, CounterMetricFamily] = {}
    for kind, unit, value in found.counts(tallies.DONE):
        family = done.setdefault(
            unit, _counter(f"job_{unit}", f"How many {unit} ended jobs have come to.", "kind")
        )
        family.add_metric([kind], value)
    yield from done.values()

    yield _durations(found, tallies.WAIT, "From the queue to the worker.")
    yield _durations(found, tallies.DURATION, "From the worker to the end, of completed jobs.")
    yield _durations(found, tallies.PHASE, "Of each phase, of completed jobs.", "phase")


def _durations(found: tallies.Tallies, measure: str, help_text: str, *labels: str) -> Metric:
    family = HistogramMetricFamily(f"imagehub_job_{measure}_seconds", help_text, labels=["kind", *labels])
    for histogram in found.histograms(measure):
        values = [histogram.kind, histogram.label][: 1 + len(labels)]
        family.add_metric(values, histogram.buckets, histogram.seconds)
    return family


def _workers() -> Iterator[Metric]:
    live = _gauge("workers_live", "Clusters that were seen in the last 30 s.", "cluster")
    hits = _counter(
        "engine_cache_hits", "What was in an engine's memory when it was needed.", "host", "pid", "cache"
    )
    loads = _counter("engine_cache_loads", "What an engine had to read from disk.", "host", "pid", "cache")
    count = {cluster.value: 0 for cluster in Cluster}
    for cluster, host, pid, facts in presence.live().values_list("cluster", "host", "pid", "facts"):
        count[cluster] = count.get(cluster, 0) + 1
        memory = (facts.get("engine") or {}).get("memory") or {}
        served = memory.get("served") or {}
        for family, cache_name, value in (
            (hits, "model", memory.get("hits")),
            (loads, "model", memory.get("loads")),
            (hits, "adapter", served.get("adapter_hits")),
            (loads, "adapter", served.get("adapter_loads")),
            (hits, "prompt", served.get("prompt_hits")),
        ):
            if value is not None:
                family.add_metric([host, str(pid), cache_name], value)
    for cluster, number in count.items():
        live.add_metric([cluster], number)
    yield from (live, hits, loads)


def _requests() -> Iterator[Metric]:
    degraded = GaugeMetricFamily(
        "imagehub_shared_cache_degraded", "Whether each process counts for itself, as the shared cache does not answer.",
        failover_cache.is_degraded(),
    )  # fmt: skip
    yield degraded
    if (
        failover_cache.is_degraded()
    ):  # what this process has counted by itself would look like a fresh beginning
        return
    refused = _counter(
        "rate_limit_rejections", "Calls that were refused because there were too many.", "group"
    )
    for group, number in rate_limits.rejections().items():
        refused.add_metric([group], number)
    answered = _counter("http_requests", "Requests that were answered.", "status")
    counts = request_counts.read()
    for status, number in counts.by_class.items():
        answered.add_metric([status], number)
    duration = HistogramMetricFamily(
        "imagehub_http_request_duration_seconds", "Until an answer, or the beginning of a stream, was there."
    )
    duration.add_metric([], counts.buckets, counts.seconds)
    yield from (refused, answered, duration)


def _disks() -> Iterator[Metric]:
    taken = _gauge(
        "disk_sample_timestamp_seconds", "When the disks of a machine were looked at last.", "host"
    )
    space = {
        "total_bytes": _gauge("filesystem_size_bytes", "Size, as of the last look.", "host", "filesystem"),
        "used_bytes": _gauge(
            "filesystem_used_bytes", "Used space, as of the last look.", "host", "filesystem"
        ),
        "free_bytes": _gauge(
            "filesystem_free_bytes", "Free space, as of the last look.", "host", "filesystem"
        ),
    }
    left = _gauge(
        "filesystem_days_left", "Until it is full, as it has grown for a month.", "host", "filesystem"
    )
    interval = _gauge("disk_sample_interval_seconds", "How often disks should be looked at.")
    interval.add_metric([], get_config().disk.sample_hours * 3600)
    used = _gauge("storage_bytes", "What files of ours take.", "host", "root", "kind")
    files = _gauge("storage_files", "How many files of ours there are.", "host", "root", "kind")
    for snapshot in disk.latest_of_each():
        taken.add_metric([snapshot.host], _seconds(snapshot.taken_at))
        for filesystem in snapshot.filesystems:
            for name, family in space.items():
                family.add_metric([snapshot.host, filesystem["name"]], filesystem[name])
        for filesystem_name, days in disk.days_left(snapshot).items():
            left.add_metric([snapshot.host, filesystem_name], days)
        for root, of_root in snapshot.usage.items():
            for kind, amount in of_root.items():
                used.add_metric([snapshot.host, root, kind], amount["bytes"])
                files.add_metric([snapshot.host, root, kind], amount["files"])
    alerts = _gauge("disk_alert", "1: the file system is too full.", "host", "filesystem")
    for host, filesystem in disk.open_alerts().values_list("host", "filesystem"):
        alerts.add_metric([host, filesystem], 1)
    yield from (taken, interval, *space.values(), left, used, files, alerts)


def _purges() -> Iterator[Metric]:
    ended = _gauge("purge_last_timestamp_seconds", "When a purge ended last that was no rehearsal.", "kind")
    failed = _gauge("purge_last_failed", "Whether that one left something undone.", "kind")
    freed = _gauge("purge_last_freed_bytes", "What that one deleted.", "kind")
    for kind in purges.kinds():
        done = Purge.objects.filter(kind=kind.name, is_dry_run=False, finished_at__isnull=False)
        if purge := done.order_by("-created_at", "-id").first():
            ended.add_metric([kind.name], _seconds(purge.finished_at))
            failed.add_metric([kind.name], purge.state == Purge.State.FAILED)
            freed.add_metric([kind.name], purge.result.get("bytes", 0))
    yield from (ended, failed, freed)


COLLECTORS: tuple[Callable[[], Iterator[Metric]], ...] = (
    _build, _queues, _speeds, _jobs, _workers, _requests, _disks, _purges,
)  # fmt: skip


def _gauge(name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"imagehub_{name}", help_text, labels=labels)


def _counter(name: str, help_text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"imagehub_{name}", help_text, labels=labels)


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0
