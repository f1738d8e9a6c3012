"""Clearing out what is left of crawls that ended some time ago: their files, and addresses that came to nothing."""

from collections.abc import Callable
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
from imagehub.operations.folders import DOOMED, bytes_below, delete_folder, lies_in, without_rows
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
    """Folders of crawls that have no row."""
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
            counts={
                "crawls": "crawls",
                "items": "addresses of pictures",
                "pages": "addresses of pages",
                "strays": "folders without a crawl",
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
    decision are not wanted any more. Folders of crawls without a row go as well, unless there is a limit to the crawls. Nothing
    outside the scraping root is touched, wherever links lead. What cannot be deleted is left to the next purge, and the other
    crawls get their turn.
    """
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
        except OSError as error:  # its text would name the path
            freed.fail(f"crawl {pk}", error.strerror)
        on_progress()
    if limit is None:
        _purge_strays(cutoff, freed, is_dry_run=is_dry_run)
    return freed


def _purge_strays(cutoff: datetime, freed: Freed, *, is_dry_run: bool) -> None:
    """Delete folders that are named like those of crawls, and belong to none: a restored database may be older than the disk."""
    for place in (folder_of(ScrapeJob()).root, thumbnails_of(ScrapeJob())):
        if not lies_in(place.parent, roots.scraping_root()):
            continue
        for folder in without_rows(place.parent, ScrapeJob.objects.all(), cutoff=cutoff):
            size = bytes_below(folder)
            try:
                if not is_dry_run:
                    delete_folder(folder)
            except OSError as error:
                freed.fail(f"the folder {folder.name}, which has no crawl", error.strerror)
                continue
            freed.strays += 1
            freed.bytes += size


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
    freed.items += delete_in_pieces(_unused(job), by="position", on_progress=on_progress)
    freed.pages += delete_in_pieces(_pages(job), on_progress=on_progress)
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
