"""``python -m bench.scraping_crawl URL PAGES IMAGES SECONDS CLUSTER OUT``: one crawl of ours, as the API would ask for it.

Runs inside of an instance whose cluster ``scraping`` runs (``bench.scraping`` starts both). CLUSTER is its process
id. Waits until the crawl has ended, and writes what became of each address as JSON.
"""

import json
import sys
import time
from pathlib import Path

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.db.models import F, Max  # noqa: E402

from albums.models import Image  # noqa: E402
from bench import machine  # noqa: E402
from imagehub.jobs.models import WorkerPresence  # noqa: E402
from scraping.services.crawls import cancel_crawl, start_crawl  # noqa: E402

POLL_SECONDS = 0.5
START_SECONDS = 60.0


def main() -> None:
    url, most_pages, most_images, seconds, cluster, out = sys.argv[1:]
    _wait_for_cluster()
    cpu = machine.cpu_seconds(int(cluster))
    job = start_crawl(
        owner=User.objects.get(email="bench@localhost"),
        url=url,
        depth=3,
        follow="anywhere",
        max_pages=int(most_pages),
        max_images=int(most_images),
    )
    deadline = time.monotonic() + float(seconds)
    while not job.is_finished:
        if time.monotonic() > deadline:
            cancel_crawl(job)
            raise SystemExit(f"The crawl has not ended: {job.status}, {job.message}")
        time.sleep(POLL_SECONDS)
        job.refresh_from_db()
    assert job.finished_at is not None
    assert job.queued_at is not None
    items = job.items.order_by("position")
    images = Image.objects.in_album(job.album) if job.album else Image.objects.none()
    last = images.aggregate(last=Max("created_at"))["last"] or job.finished_at
    result = {
        "status": job.status,
        "error": job.error_code,
        "end_reason": job.end_reason,
        "seconds": (job.finished_at - job.queued_at).total_seconds(),
        "cpu_seconds": machine.cpu_seconds(int(cluster)) - cpu,
        "seconds_to_last": (last - job.queued_at).total_seconds(),
        "in_album": images.count(),
        "items": list(items.values_list("url", "state", "reason")),
        "resembling": items.filter(resembles__isnull=False).count(),
    }
    Path(out).write_text(json.dumps(result))


def _wait_for_cluster() -> None:
    """Wait until the workers answer their doorbell: starting them is no part of a crawl."""
    answering = WorkerPresence.objects.filter(cluster="scraping", seen_at__gt=F("started_at"))
    deadline = time.monotonic() + START_SECONDS
    while not answering.exists():
        if time.monotonic() > deadline:
            raise SystemExit("The cluster does not answer.")
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
