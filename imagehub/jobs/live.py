"""Previews of pictures in the making: shown while somebody watches, and kept by nobody.

Whoever watches a job says so from time to time; the worker looks, and writes only then. Both meet in one row of the database, so
it works between any processes and machines, with Redis or without.
"""

import base64
import binascii
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import DateTimeField, ExpressionWrapper
from django.db.models.functions import Now

from imagehub.jobs.models import Audience, Job

WATCHED = timedelta(seconds=15)
"""How long somebody counts as watching, unless they say so again."""

PREVIEW_SECONDS = 0.25
"""The shortest time between two previews of a job."""

MAX_PREVIEW_BYTES = 64 * 1024

LOOK_SECONDS = 1.0
"""How long a worker believes that somebody watches, or nobody."""

_last_look: tuple[UUID | None, float, bool] = (None, 0.0, False)
_last_preview: tuple[UUID | None, float] = (None, 0.0)


@dataclass(frozen=True)
class Preview:
    """A small JPEG, and the step it shows."""

    step: int
    jpeg: bytes

    @property
    def url(self) -> str:
        """Return it as a ``data:`` address."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def is_watched(job: UUID) -> bool:
    """Tell the worker of a job whether somebody watches it; asks the database once a second at most."""
    global _last_look
    known, looked_at, answer = _last_look
    if known != job or time.monotonic() - looked_at >= LOOK_SECONDS:
        answer = Audience.objects.filter(job=job, until__gt=Now()).exists()
        _last_look = (job, time.monotonic(), answer)
    return answer


def publish(job: Job, event: Mapping[str, Any]) -> bool:
    """Show a preview to those who watch, at most four a second; tell whether it was written.

    Args:
        job: the claimed job that it belongs to. It is shown as long as this claim holds: the next attempt begins anew.
        event: what the engine said: ``step``, a number, and ``data``, a JPEG of at most 64 KiB in base64. Anything else is
            not shown.
    """
    global _last_preview
    known, shown_at = _last_preview
    if known == job.token and time.monotonic() - shown_at < PREVIEW_SECONDS:
        return False
    step, data = event.get("step"), event.get("data")
    if not isinstance(step, int) or step < 0 or not isinstance(data, str) or not is_watched(job.pk):
        return False
    try:
        jpeg = base64.b64decode(data, validate=True)
    except binascii.Error:
        return False
    if not jpeg.startswith(b"\xff\xd8") or len(jpeg) > MAX_PREVIEW_BYTES:
        return False
    _last_preview = (job.token, time.monotonic())
    watching = Audience.objects.filter(job=job.pk, until__gt=Now())
    return bool(watching.update(step=step, preview=jpeg, token=job.token))


def watch(jobs: Iterable[UUID]) -> None:
    """Say that somebody watches these jobs for the next 15 seconds."""
    forget()  # who comes back later is not shown how it looked then
    until = ExpressionWrapper(Now() + WATCHED, output_field=DateTimeField())
    Audience.objects.bulk_create(
        [Audience(job=job, until=until) for job in sorted(set(jobs))],
        update_conflicts=True,
        unique_fields=["job"],
        update_fields=["until"],
    )


def watch_once(job: UUID) -> None:
    """Say that somebody has just looked at a job, and may look again soon. Mostly without writing."""
    if not Audience.objects.filter(job=job, until__gt=Now() + WATCHED / 2).exists():
        watch([job])


def previews(jobs: Iterable[Job]) -> dict[UUID, Preview]:
    """Return the latest preview of each job that has one of the claim it runs under."""
    tokens = {job.pk: job.token for job in jobs if job.token is not None}
    rows = Audience.objects.filter(
        job__in=list(tokens), until__gt=Now(), preview__isnull=False, step__isnull=False
    )
    return {
        job: Preview(step, bytes(jpeg))
        for job, token, step, jpeg in rows.values_list("job", "token", "step", "preview")
        if token == tokens[job]
    }


def forget() -> int:
    """Delete what nobody watches any more; return the number of rows."""
    return Audience.objects.filter(until__lte=Now()).delete()[0]
