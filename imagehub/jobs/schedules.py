"""What runs by the clock. Rows are made after each migration, so a fresh database has them at once."""

from datetime import datetime, time, timedelta
from typing import Any

from django.utils import timezone
from django_q.models import Schedule


def ensure_schedules(**_: Any) -> None:
    """Create the schedules that are missing. Changes made in admin stay."""
    for name, func, every, at in (
        ("Reap lost jobs", "imagehub.jobs.tasks.reap", Schedule.MINUTES, None),
        ("Prune results", "imagehub.jobs.tasks.prune", Schedule.DAILY, time(4, 15)),
    ):
        Schedule.objects.get_or_create(
            name=name,
            defaults={
                "func": func,
                "kwargs": "{'q_options': {'save': False}}",  # a success every minute says nothing
                "schedule_type": every,
                "minutes": 1 if every == Schedule.MINUTES else None,
                "repeats": -1,
                "next_run": _next(at),
            },
        )


def _next(at: time | None) -> datetime:
    now = timezone.now()
    if at is None:
        return now
    return datetime.combine(now.date() + timedelta(days=1), at, tzinfo=now.tzinfo)
