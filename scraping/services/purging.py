"""Clearing out what is left of crawls that ended some time ago: their files, and addresses that came to nothing."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from imagehub import roots
from imagehub.jobs.models import JobStatus
from imagehub.operations import purges
from imagehub.operations.folders import (
    DOOMED,
    bytes_below,
    count_strays,
    delete_folder,
    is_empty,
    lies_in,
    without_rows,
)
from imagehub.operations.walking import delete_in_pieces, older_than
from scraping.models import ImageOutcome, ScrapedImage, ScrapedPage, ScrapeJob
from scraping.services.folders import folder_of, thumbnails_of

PURGE = "scraping"
"""The name of this kind of purge."""

EXPIRED = "review_expired"
"""The reason on pictures that nobody has decided about in time."""


@dataclass(kw_only=True)
class Freed(purges.Freed):
    """What a purge of crawls deletes, or would. What failed are crawls."""

    crawls: int = 0
    items: int = 0
    """Addresses of pictures that are in no album by them."""
    pages: int = 0
    expired: int = 0
    """Of the items, those that waited for a decision."""
    strays: int = 0
    """Folders that are named like those of crawls, and have no row. They stay."""
    kept: int = 0
    """Crawls of which approved pictures are still to be taken in. The next purge looks again."""


class _Refused(Exception):
    """What is to be deleted is not the folder of a crawl, or is none at all."""


class _Missing(Exception):
    """A crawl has no folder, and somebody was to decide about what lies there."""


def register() -> None:
    """Let the platform clear out crawls."""
    purges.register(
        purges.PurgeKind(
            name=PURGE,
            things="crawls",
            setting="scraping.retention_days",
            clock="purges.scraping_at",
            perform=purge_crawls,
            counts={
                "crawls": "crawls",
                "items": "addresses of pictures",
                "pages": "addresses of pages",
            },
        )
    )


def purge_crawls(
    *,
    cutoff: datetime,
    is_dry_run: bool = False,
    limit: int | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Freed:
    """Delete the folders of crawls that ended before, and the rows of addresses that have led to no image.

    What is left: crawls that have not ended, the rows of all crawls, and the addresses that have an image, with those of pages
    that have led to where it stands: they tell where it is from, and a takedown looks for them. Pictures that wait for a
    decision are not wanted any more. Folders of crawls without a row are counted, unless there is a limit to the crawls. Nothing
    outside the scraping root is touched, wherever links lead. What cannot be deleted is left to the next purge, and the other
    crawls get their turn.

    Raises:
        NotThere: the scraping root is missing or empty, and crawls have run.
    """
    # First the disk. What crawls leave behind when all of them are purged is the folder of their folders.
    if (
        is_empty(roots.scraping_root())
        and ScrapeJob.objects.filter(purged_at=None, started_at__isnull=False).exists()
    ):
        raise purges.NotThere("The scraping root is missing or empty, and crawls should have files there")
    freed = Freed()
    ended = ScrapeJob.objects.filter(purged_at=None)
    for pk in chain.from_iterable(older_than(ended, cutoff, by="finished_at")):
        if limit is not None and freed.crawls >= limit:
            return freed
        job = ended.filter(pk=pk, status__in=JobStatus.FINISHED).first()
        if job is None:  # somebody else was faster
            continue
        try:
            if is_dry_run:
                _rehearse(job, freed)
            else:
                _purge(job, freed, on_progress)
        except _Refused:
            freed.fail(f"crawl {pk}", "what lies in the place of its folder is left alone")
        except _Missing:
            freed.fail(f"crawl {pk}", "its folder is missing, and pictures in it wait for a decision")
        except OSError as error:  # its text would name the path
            freed.fail(f"crawl {pk}", error.strerror)
        on_progress()
    if limit is None:
        for place in (folder_of(ScrapeJob()).root.parent, thumbnails_of(ScrapeJob()).parent):
            if lies_in(place, roots.scraping_root()):
                strays = without_rows(place, ScrapeJob.objects.all(), cutoff=cutoff)
                freed.strays += count_strays(strays, "crawl", on_progress=on_progress)
    return freed


def _rehearse(job: ScrapeJob, freed: Freed) -> None:
    if _is_wanted(job):
        freed.kept += 1
        return
    _require_folder(job)
    folders = (folder_of(job).root, _doomed(job), thumbnails_of(job))
    freed.bytes += sum(bytes_below(folder) for folder in list(map(_vetted, folders)))
    freed.expired += _in_review(job).count()
    freed.items += _unused(job).count()
    freed.pages += _pages(job).count()
    freed.crawls += 1


def _purge(job: ScrapeJob, freed: Freed, on_progress: Callable[[], None]) -> None:
    """Delete what there is of a crawl. Each step can be taken again: it is over only when the last one says so."""
    folder, doomed, thumbnails = map(_vetted, (folder_of(job).root, _doomed(job), thumbnails_of(job)))
    size = bytes_below(doomed)
    delete_folder(doomed)  # if an earlier purge has come so far
    expired = _expire(job)
    if expired is None:
        freed.kept += _is_wanted(job)
        return
    freed.expired += expired
    with suppress(FileNotFoundError):  # there was none, or somebody else is faster
        folder.rename(doomed)
    on_progress()
    for folder in (doomed, thumbnails):
        size += bytes_below(folder)
        delete_folder(folder)
    freed.bytes += size
    on_progress()
    freed.items += delete_in_pieces(_unused(job), by="position", on_progress=on_progress)
    freed.pages += delete_in_pieces(_pages(job), on_progress=on_progress)
    ended = ScrapeJob.objects.filter(pk=job.pk, status__in=JobStatus.FINISHED, purged_at=None)
    freed.crawls += ended.update(purged_at=Now())


def _expire(job: ScrapeJob) -> int | None:
    """Expire what waits for a decision in the folder of a crawl: nobody looks for the folder any more, and it may go.

    Whoever decides about pictures or takes them in holds the row of the crawl, as we do: of what he gets nothing is deleted
    afterwards. Returns how many pictures have expired; None where there are approved ones, or somebody else was faster.

    Raises:
        _Missing: see :func:`_require_folder`.
    """
    with transaction.atomic():
        rows = ScrapeJob.objects.filter(pk=job.pk, status__in=JobStatus.FINISHED, purged_at=None)
        if rows.select_for_update(no_key=True).first() is None or _is_wanted(job):
            return None
        _require_folder(job)
        return _in_review(job).update(state=ImageOutcome.FILTERED, reason=EXPIRED)


def _require_folder(job: ScrapeJob) -> None:
    """See that the pictures of a crawl about which somebody is to decide can be there at all.

    Raises:
        _Missing: they cannot.
    """
    if not folder_of(job).root.exists() and _in_review(job).exists():
        raise _Missing


def _doomed(job: ScrapeJob) -> Path:
    """Return where the folder of a crawl waits to be deleted: always the same place, so that the next purge finds it there."""
    folder = folder_of(job).root
    return folder.with_name(f"{DOOMED}{folder.name}")


def _vetted(path: Path) -> Path:
    """Return a path that may be deleted: a folder in the scraping root, or nothing.

    Raises:
        _Refused: it is something else, or lies elsewhere.
    """
    if not lies_in(path, roots.scraping_root()) or (path.exists() and not path.is_dir()):
        raise _Refused
    return path


def _in_review(job: ScrapeJob) -> QuerySet[ScrapedImage]:
    return ScrapedImage.objects.filter(job=job, state=ImageOutcome.REVIEW)


def _is_wanted(job: ScrapeJob) -> bool:
    """Tell whether pictures have been approved, and are about to be taken in."""
    return _in_review(job).exclude(reason="").exists()


def _unused(job: ScrapeJob) -> QuerySet[ScrapedImage]:
    return ScrapedImage.objects.filter(job=job, image=None)


def _pages(job: ScrapeJob) -> QuerySet[ScrapedPage]:
    """Return the pages of a crawl, without those that have led elsewhere, to where a picture of an image stands.

    The image knows only where it stands; that it was shown under the other address as well, nobody else knows.
    """
    shown = ScrapedImage.objects.filter(job=job, image__isnull=False).exclude(page_url="")
    ways = ~Q(final_url=F("url")) & Q(final_url__in=shown.values("page_url"))
    return ScrapedPage.objects.filter(job=job).exclude(ways)
