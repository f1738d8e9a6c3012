"""Contents that were taken down: what a crawl meets again is not taken in again."""

from collections.abc import Iterable

from albums.batches import in_batches
from albums.models import BarredContent


def bar_contents(sha256s: Iterable[str]) -> None:
    """Bar contents, whoever has them. Those that are barred already stay so."""
    for batch in in_batches(sorted(set(sha256s) - {""})):
        BarredContent.objects.bulk_create(
            [BarredContent(sha256=sha256) for sha256 in batch], ignore_conflicts=True
        )


def admit_contents(sha256s: Iterable[str]) -> None:
    """Take contents back: somebody wants to have them after all."""
    for batch in in_batches(sorted(set(sha256s))):
        BarredContent.objects.filter(sha256__in=batch).delete()


def contents_taken_down(sha256s: Iterable[str]) -> set[str]:
    """Return which of these contents were taken down, and not restored since. By one query for every 500."""
    return {
        sha256
        for batch in in_batches(sorted(set(sha256s)))
        for sha256 in BarredContent.objects.filter(sha256__in=batch).values_list("sha256", flat=True)
    }
