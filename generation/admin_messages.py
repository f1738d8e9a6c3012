"""What the pages of jobs and of set runs in the admin have in common: whom a retry counts for, and what is said of it."""

from collections.abc import Callable

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.http import HttpRequest

from generation.services import Retried
from imagehub import rate_limits

MOST_REASONS = 3


def charging(request: HttpRequest) -> Callable[[int], object]:
    """Return what counts pictures as ``POST /api/generate`` does, for whoever is signed in."""
    return lambda cost: rate_limits.charge("generate", rate_limits.rate_limit_key(request), cost)


def tell_retried(page: ModelAdmin, request: HttpRequest, done: Retried) -> None:
    """Say in one message what became of a retry, whatever the number of rows."""
    said = [f"{counted(done.pictures, 'picture is', 'pictures are')} queued again."]
    said += [f"Refused: {number}. {reason}" for reason, number in done.refused.most_common(MOST_REASONS)]
    if others := done.refused.total() - sum(n for _, n in done.refused.most_common(MOST_REASONS)):
        said.append(f"Refused for other reasons: {others}.")
    if done.left:
        said.append(f"Left as they are: {done.left}. {done.because}")
    is_all = done.pictures and not done.refused and not done.left
    page.message_user(request, " ".join(said), messages.SUCCESS if is_all else messages.WARNING)


def counted(number: int, one: str, many: str) -> str:
    """Return a number with the words that go with it."""
    return f"{number} {one if number == 1 else many}"
