"""What runs by the clock. Rows are made after each migration, so a fresh database has them at once."""

from datetime import datetime, time, timedelta
from typing import Any

from django.utils import timezone
from django_q.models import Schedule


def ensure_schedules(**_: Any) -> None:
    """Create the schedules that are missing. Changes made in admin stay."""
    ensure_schedule("Reap lost jobs", "imagehub.jobs.tasks.reap", minutes=1)
    ensure_schedule("Prune results", "imagehub.jobs.tasks.prune", daily_at=time(4, 15))


def ensure_schedule(
    name: str, function: str, *, minutes: int | None = None, daily_at: time | None = None
) -> None:
    """Create a schedule if it is missing: every so many minutes, or once a day (UTC). For ``post_migrate``."""
    Schedule.objects.get_or_create(
        name=name,
        defaults={
            "func": function,
            "kwargs": "{'q_options': {'save': False}}",  # a success every minute says nothing
            "schedule_type": Schedule.DAILY if daily_at else Schedule.MINUTES,
            "minutes": minutes,
            "repeats": -1,
            "next_run": _next(daily_at),
        },
    )


def _next(at: time | None) -> datetime:
    now = timezone.now()
    if at is None:
        return now
    return datetime.combine(now.date() + timedelta(days=1), at, tzinfo=now.tzinfo)
