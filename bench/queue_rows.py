"""``python -m bench.queue_rows FINISHED QUEUED ROUNDS``: fill a queue, and claim from it; prints one line of JSON.

Runs inside of an instance (``bench.queue`` starts it). Claims are rolled back, so each finds the same queue.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from generation.models import GenerationJob  # noqa: E402
from imagehub.database import insert_like  # noqa: E402
from imagehub.identifiers import new_id  # noqa: E402
from imagehub.jobs.positions import queue_positions  # noqa: E402
from imagehub.operations import metrics  # noqa: E402
from training.models import BaseModel  # noqa: E402

OWNERS = 5
BATCH = 5000


class Filler:
    """Inserts generation jobs of five owners, for two models."""

    def __init__(self) -> None:
        self.owners = [User.objects.create(username=f"owner{number}") for number in range(OWNERS)]
        self.models = [
            BaseModel.objects.get(name="starter"),
            BaseModel.objects.create(name="other", kind="folder", source="other"),
        ]

    def insert(self, count: int, **fields: Any) -> None:
        pattern = GenerationJob(
            prompt="a red heart on a white background",
            steps=25,
            width=64,
            height=64,
            guidance_scale=4.0,
            **fields,
        )
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            each = {
                "id": [new_id() for _ in numbers],
                "owner": [self.owners[number % OWNERS].pk for number in numbers],
                "base_model": [self.models[number // OWNERS % 2].pk for number in numbers],
                "seed": list(numbers),
            }
            with transaction.atomic():
                insert_like(pattern, each)

    def insert_ended(self, count: int, at: datetime, **fields: Any) -> None:
        """Insert jobs that took two seconds until then."""
        begun = at - timedelta(seconds=2)
        self.insert(
            count, attempt=1, created_at=begun, queued_at=begun, started_at=begun, finished_at=at, **fields
        )

    @staticmethod
    def analyse() -> None:
        """Have the database look at what there is, as it does before long by itself."""
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def main() -> None:
    finished, queued, rounds = map(int, sys.argv[1:])
    filler = Filler()
    models, now = filler.models, timezone.now()
    filler.insert_ended(finished, now - timedelta(days=3), status="completed")
    filler.insert(queued, status="queued", queued_at=now)
    filler.analyse()
    last = GenerationJob.objects.queued().order_by("-owner", "-id")[0]
    page = list(GenerationJob.objects.newest_first()[:50])
    print(
        json.dumps(
            {
                "job": str(last.pk),
                "claim": _times(lambda: _claim(()), rounds),
                "claim for a warm model": _times(lambda: _claim({models[1].pk}), rounds),
                "place of the last job": _times(lambda: queue_positions(GenerationJob, [last]), rounds),
                "places of a page of 50": _times(lambda: queue_positions(GenerationJob, page), rounds),
                "page of metrics": _times(_metrics, rounds),
            }
        )
    )


def _claim(warm: object) -> None:
    with transaction.atomic():
        assert GenerationJob.objects.claim(worker="bench", warm=warm) is not None
        transaction.set_rollback(True)


def _metrics() -> None:
    cache.clear()
    metrics.page()


def _times(act: Callable[[], object], rounds: int) -> list[float]:
    act()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        act()
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    main()
