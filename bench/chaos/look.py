"""``python -m bench.chaos.look FILE``: compare the rows with what was promised; prints one line of JSON.

Runs inside of the instance. FILE holds what the clients were promised, as JSON.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import django

django.setup()

from django.utils import timezone  # noqa: E402
from django_q.models import OrmQ  # noqa: E402

from albums.models import Image  # noqa: E402
from generation.models import GenerationJob, SetRun  # noqa: E402
from imagehub import storage  # noqa: E402
from imagehub.jobs.models import JobStatus  # noqa: E402
from imagehub.jobs.registry import get_kind, kinds  # noqa: E402
from imagehub.operations.models import Purge  # noqa: E402
from scraping.models import ScrapedImage  # noqa: E402
from training.models import Adapter, TrainingRun  # noqa: E402

DOORBELL = "imagehub.jobs.tasks.answer_doorbell"
UNFORESEEN = {"internal_error"}
"""Codes of failures that nobody has thought of."""


def main() -> None:
    promised = json.loads(Path(sys.argv[1]).read_text())
    breaches = [*_jobs(promised), *_pictures(promised), *_waiting()]
    print(json.dumps({"breaches": breaches, "ended": _ended()}))


def _ended() -> dict[str, dict[str, int]]:
    """Count how the jobs of each kind ended, by status and code."""
    ended = {
        kind.name: _counted(kind.model._default_manager.values_list("status", "error_code"))
        for kind in kinds()
    }
    return ended | {"scraped addresses": _counted(ScrapedImage.objects.values_list("state", "reason"))}


def _counted(rows: Iterable[tuple[str, str]]) -> dict[str, int]:
    return dict(Counter(" ".join(row).strip() for row in rows))


def _jobs(promised: dict[str, Any]) -> list[str]:
    """Find jobs that were lost, doubled, or have not ended."""
    found = []
    for kind in kinds():
        rows = kind.model._default_manager.filter(status__in=(JobStatus.QUEUED, JobStatus.RUNNING))
        found += [f"{kind.name} {pk} is {status}" for pk, status in rows.values_list("pk", "status")]
        bad = kind.model._default_manager.filter(error_code__in=UNFORESEEN)
        found += [
            f"{kind.name} {pk} failed with {code}: {trace[-600:]}"
            for pk, code, trace in bad.values_list("pk", "error_code", "error_trace")
        ]
    for name in ("generation", "training", "scraping"):
        accepted = set(promised["accepted"].get(name, {}))
        there = {str(pk) for pk in get_kind(name).model._default_manager.values_list("pk", flat=True)}
        if name == "generation":  # those of sets were promised as sets
            there -= {
                str(pk) for pk in GenerationJob.objects.exclude(set_run=None).values_list("pk", flat=True)
            }
        found += [f"{name} {pk} was promised and is lost" for pk in accepted - there]
        spare = len(there - accepted) - promised["unknown"].get(name, 0)
        if spare > 0:
            found.append(f"{name}: {spare} jobs more than were asked for")
    sets = {str(pk) for pk in SetRun.objects.values_list("pk", flat=True)}
    found += [f"set {pk} was promised and is lost" for pk in set(promised["accepted"].get("set", {})) - sets]
    return found


def _pictures(promised: dict[str, Any]) -> list[str]:
    """Find jobs with fewer or more pictures than they should have, and pictures that are lost."""
    found = []
    made = Counter(Image.objects.filter(source_kind="generation").values_list("source_id", flat=True))
    for pk, status, n in GenerationJob.objects.values_list("pk", "status", "n"):
        count = made.pop(pk, 0)
        if count > n or (status == JobStatus.COMPLETED and count != n):
            found.append(f"generation {pk} is {status} with {count} of {n} pictures")
    found += [f"{count} pictures of no job, {pk}" for pk, count in made.items()]
    uploads = promised["accepted"].get("upload", {})
    there = {str(pk) for pk in Image.objects.values_list("pk", flat=True)}
    found += [f"image {pk} was promised and is lost" for pk in set(uploads) - there]
    for pk, name in Image.objects.values_list("pk", "storage_name"):
        if not storage.exists(name):
            found.append(f"image {pk} has no file")
    for run in TrainingRun.objects.filter(status=JobStatus.COMPLETED):
        adapters = Adapter.objects.filter(training_run=run).count()
        if adapters != 1:
            found.append(f"training {run.pk} is completed with {adapters} adapters")
    return found


def _waiting() -> list[str]:
    """Find messages and purges that nobody takes."""
    free = OrmQ.objects.filter(lock__lte=timezone.now())
    names = Counter(message.func() for message in free)
    found = [f"{count} messages wait for {name}" for name, count in names.items() if name != DOORBELL]
    # One whose worker was killed is taken up again, but only when it is known to be lost.
    if waiting := Purge.objects.filter(state=Purge.State.WAITING).count():
        found.append(f"{waiting} purges wait")
    return found


if __name__ == "__main__":
    main()
