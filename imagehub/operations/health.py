"""Is the system well? Each check answers with a sentence about what is wrong, or with nothing."""

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.cache import cache
from django.db import DatabaseError, connection
from django.utils import timezone

from imagehub import config, failover_cache, storage
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.registry import kinds
from imagehub.operations import disk
from imagehub.operations.queues import depth

STATUSES = [("ok", "Everything is well"), ("degraded", "Something is wrong")]


def queues() -> dict[str, dict[str, int]]:
    """Return how many jobs of each kind wait and run."""
    found = {kind.name: depth(kind, timezone.now()) for kind in kinds()}
    return {name: {"queued": of_kind.queued, "running": of_kind.running} for name, of_kind in found.items()}


def workers() -> list[dict[str, Any]]:
    """Return the live clusters, and what each said last of itself."""
    return list(presence.live().order_by("cluster", "host", "pid").values("cluster", "host", "pid", "facts"))


def problems() -> dict[str, str]:
    """Return what is wrong, by part: empty when everything is well."""
    found = {}
    for part, check in CHECKS.items():
        try:
            sentence = check()
        except Exception as error:  # noqa: BLE001 - whatever breaks a check is the answer to it
            sentence = f"The check failed: {type(error).__name__}."
        if sentence:
            found[part] = sentence
    return found


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return "The database does not answer."
    return ""


def _cache() -> str:
    value = secrets.token_hex(8)
    cache.set("health", value, 10)
    # Another request may write in between, so any value proves that the cache remembers.
    if not cache.get("health"):
        return "The cache does not remember."
    return (
        "The shared cache does not answer; each process counts rate limits for itself."
        if failover_cache.is_degraded()
        else ""
    )


def _storage() -> str:
    return storage.problem()


def _configuration() -> str:
    return "The configuration file is broken; the last good one is in force." if config.problem() else ""


def _workers() -> str:
    needed = {Cluster.DEFAULT} | {kind.cluster for kind in kinds()}
    alive = set(presence.live().values_list("cluster", flat=True))
    missing = sorted(cluster.value for cluster in needed if cluster.value not in alive)
    return f"No live worker: {', '.join(missing)}." if missing else ""


def _disk() -> str:
    sentences = []
    if age := disk.overdue():
        sentences.append(f"The disks were last looked at {age / timedelta(hours=1):.0f} hours ago.")
    if hosts := sorted(set(disk.open_alerts().values_list("host", flat=True))):
        sentences.append(f"A disk is too full: {', '.join(hosts)}.")
    return " ".join(sentences)


NOT_NEEDED_TO_SERVE = frozenset({"cache", "configuration", "disk"})
"""Parts that are reported but do not make the system unready.

A cache in the process stands in for the shared one, the last good configuration is in force, and a disk that fills is not full yet.
"""

CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "cache": _cache,
    "storage": _storage,
    "configuration": _configuration,
    "workers": _workers,
    "disk": _disk,
}
