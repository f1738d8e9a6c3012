"""A program that fills the queues, asks for the first page of the admin in its own process, and prints how long that took.

``python -m bench.cockpit_pages 100000 ROUNDS`` works on the instance that the environment names. What it prints is one line of JSON.
"""

import json
import sys
import time
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils import timezone  # noqa: E402

from albums.models import Album  # noqa: E402
from bench.queue_rows import Filler  # noqa: E402
from generation.models import GenerationJob, SetRun  # noqa: E402
from imagehub.jobs.clusters import Cluster  # noqa: E402
from imagehub.jobs.models import WorkerPresence  # noqa: E402
from imagehub.operations.models import Purge  # noqa: E402

PAGES = {"the first page of the admin": "/admin/", "what it fetches anew": "/admin/cockpit/"}

CODES = ("out_of_memory", "engine_error", "worker_lost", "model_missing")
SET_RUNS, SET_ROWS = 40, 54
SPREAD = 40
"""At so many different times of the day jobs ended."""

LONGEST = 160
"""Characters of a query that are printed."""


def main() -> None:
    count, rounds = map(int, sys.argv[1:])
    fill(count)
    settings.ALLOWED_HOSTS = ["testserver"]
    client = Client()
    client.force_login(User.objects.create(username="ada", is_staff=True, is_superuser=True))
    print(json.dumps({name: measure(client, url, rounds) for name, url in PAGES.items()}))


def fill(count: int) -> None:
    """Insert so many jobs of all statuses, and what there is besides."""
    filler, now = Filler(), timezone.now()
    for part in range(SPREAD):
        at = now - timedelta(minutes=1 + part * 30)
        filler.insert_ended(count * 84 // 100 // SPREAD, at, status="completed")
        filler.insert_ended(
            count * 6 // 100 // SPREAD,
            at,
            status="failed",
            error_code=CODES[part % len(CODES)],
            error_detail="x",
        )
    template = Album.objects.first()
    for _ in range(SET_RUNS):
        run = SetRun.objects.create(owner=filler.owners[0], template=template, theme="ink", total=SET_ROWS)
        filler.insert(SET_ROWS, status="queued", queued_at=now, set_run=run, set_index=0)
    filler.insert(count // 10 - SET_RUNS * SET_ROWS, status="queued", queued_at=now)
    for _ in range(4):
        GenerationJob.objects.claim(worker="bench:1")
    for cluster in Cluster:
        WorkerPresence.objects.create(cluster=cluster.value, host="bench", pid=1)
    Purge.objects.bulk_create(
        Purge(kind="training", origin="clock", older_than_days=30, state="done") for _ in range(400)
    )
    filler.analyse()


def measure(client: Client, url: str, rounds: int) -> dict[str, Any]:
    """Ask for a page, each time as if nobody had asked before."""
    get(client, url)
    cache.clear()
    with CaptureQueriesContext(connection) as queries:
        get(client, url)
        asked = list(queries)
    slowest = max(asked, key=lambda query: float(query["time"]))
    times, cpu = [], time.process_time()
    for _ in range(rounds):
        cache.clear()
        WorkerPresence.objects.update(seen_at=timezone.now())
        started_at = time.perf_counter()
        get(client, url)
        times.append(1000 * (time.perf_counter() - started_at))
    return {
        "times": times,
        "cpu_ms": 1000 * (time.process_time() - cpu) / rounds,
        "queries": len(asked),
        "slowest": slowest["sql"][:LONGEST],
        "slowest_ms": 1000 * float(slowest["time"]),
    }


def get(client: Client, url: str) -> None:
    response = client.get(url)
    if response.status_code != 200:
        raise SystemExit(f"{url} answered {response.status_code}")


if __name__ == "__main__":
    main()
