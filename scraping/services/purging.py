"""Clearing out what is left of crawls that ended some time ago: their files, and addresses that came to nothing."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from imagehub import roots
from imagehub.jobs.models import JobStatus
from imagehub.operations import purges
from imagehub.operations.folders import bytes_below, delete_folder, lies_in
from scraping.models import ImageOutcome, ScrapedImage, ScrapedPage, ScrapeJob
from scraping.services.folders import folder_of, thumbnails_of

logger = logging.getLogger(__name__)

PURGE = "scraping"
"""The name of this kind of purge."""

EXPIRED = "review_expired"
"""The reason on pictures that nobody has decided about in time."""

BATCH = 1000
"""Rows that are deleted by one statement."""


@dataclass(kw_only=True)
class Freed(purges.Freed):
    """What a purge of crawls deletes, or would. What failed are crawls."""

    crawls: int = 0
    items: int = 0
    """Addresses of pictures that are in no album by them."""
    pages: int = 0
    expired: int = 0
    """Of the items, those that waited for a decision."""
    kept: int = 0
    """Crawls of which approved pictures are still to be taken in. The next purge looks again."""


class _Refused(Exception):
    """What is to be deleted is not the folder of a crawl, or is none at all."""


def register() -> None:
    """Let the platform clear out crawls."""
    purges.register(
        purges.PurgeKind(
            name=PURGE,
            things="crawls",
            setting="scraping.retention_days",
            clock="purges.scraping_at",
            perform=purge_crawls,
            counts={"crawls": "crawls", "items": "addresses of pictures", "pages": "addresses of pages"},
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
    that have led to where it stands: they tell where it is from, and a takedown looks for them. Pictures that wait for a decision are not wanted any more. Nothing outside the
    scraping root is touched, wherever links lead. What cannot be deleted is left to the next purge, and the other crawls get
    their turn.
    """
    freed = Freed()
    ended = ScrapeJob.objects.filter(status__in=JobStatus.FINISHED, finished_at__lt=cutoff, purged_at=None)
    # Their keys only, at once: a cursor would have to stay open over all the writing.
    for pk in list(ended.order_by("finished_at", "pk").values_list("pk", flat=True)):
        if limit is not None and freed.crawls >= limit:
            break
        job = ended.filter(pk=pk).first()
        if job is None:  # somebody else was faster
            continue
        try:
            if is_dry_run:
                _rehearse(job, freed)
            else:
                _purge(job, freed, on_progress)
        except _Refused:
            logger.error("What lies in the place of the folder of crawl %s is left alone", pk)
            freed.failed += 1
        except OSError as error:  # its text would name the path
            logger.error("The files of crawl %s cannot be deleted: %s", pk, error.strerror)
            freed.failed += 1
        on_progress()
    return freed


def _rehearse(job: ScrapeJob, freed: Freed) -> None:
    if _is_wanted(job):
        freed.kept += 1
        return
    folders = (folder_of(job).root, _doomed(job), thumbnails_of(job))
    freed.bytes += sum(bytes_below(folder) for folder in list(map(_vetted, folders)))
    freed.expired += _in_review(job).count()
    freed.items += _unused(job).count()
    freed.pages += _pages(job).count()
    freed.crawls += 1


def _purge(job: ScrapeJob, freed: Freed, on_progress: Callable[[], None]) -> None:
    """Delete what there is of a crawl. Each step can be taken again: it is over only when the last one says so."""
    doomed, thumbnails = _vetted(_doomed(job)), _vetted(thumbnails_of(job))
    size = bytes_below(doomed)
    delete_folder(doomed)  # if an earlier purge has come so far
    expired = _set_aside(job, doomed)
    if expired is None:
        freed.kept += _is_wanted(job)
        return
    freed.expired += expired
    for folder in (doomed, thumbnails):
        size += bytes_below(folder)
        delete_folder(folder)
    freed.bytes += size
    on_progress()
    freed.items += _delete(_unused(job), on_progress)
    freed.pages += _delete(_pages(job), on_progress)
    ended = ScrapeJob.objects.filter(pk=job.pk, status__in=JobStatus.FINISHED, purged_at=None)
    freed.crawls += ended.update(purged_at=Now())


def _set_aside(job: ScrapeJob, doomed: Path) -> int | None:
    """Move the folder of a crawl to where nobody looks for it, which is quick, and expire what waits for a decision there.

    Whoever decides about pictures or takes them in holds the row of the crawl, as we do: of what he gets nothing is deleted
    afterwards. Returns how many pictures have expired; None where there are approved ones, or somebody else was faster.
    """
    with transaction.atomic():
        rows = ScrapeJob.objects.filter(pk=job.pk, status__in=JobStatus.FINISHED, purged_at=None)
        if rows.select_for_update(no_key=True).first() is None or _is_wanted(job):
            return None
        expired = _in_review(job).update(state=ImageOutcome.FILTERED, reason=EXPIRED)
        folder = _vetted(folder_of(job).root)
        if folder.exists():
            folder.rename(doomed)
        return expired


def _doomed(job: ScrapeJob) -> Path:
    """Return where the folder of a crawl waits to be deleted: always the same place, so that the next purge finds it there."""
    folder = folder_of(job).root
    return folder.with_name(f".doomed-{folder.name}")


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


def _delete(rows: QuerySet[Any], on_progress: Callable[[], None]) -> int:
    """Delete rows, some at a time; return how many. Without signals, for which each would be read: nothing hangs on them."""
    deleted = 0
    while keys := list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        deleted += rows.filter(pk__in=keys)._raw_delete(using=rows.db)
        on_progress()
    return deleted
