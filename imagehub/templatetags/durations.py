"""Times for people."""

from datetime import datetime

from django import template
from django.utils import timezone

register = template.Library()

NOTHING = "\N{EN DASH}"


@register.filter
def duration(seconds: float | None) -> str:
    """Return a number of seconds as people say it: in seconds, then minutes, hours and days; a dash for none."""
    if seconds is None:
        return NOTHING
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


@register.filter
def ago(moment: datetime | None) -> str:
    """Return how long ago something was; a dash where it never was."""
    if moment is None:
        return NOTHING
    return f"{duration(max(0.0, (timezone.now() - moment).total_seconds()))} ago"
