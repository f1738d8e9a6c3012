"""Pictures that wait for somebody's word: those of a crawl that is to be reviewed, and those that look like one that is there.

What a crawl under review fetches stays in its folder. Each picture gets one decision, which is final: rejected it is not
wanted, approved it waits, still in state ``review``, until a worker has taken it in.
"""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import partial
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from albums.batches import in_batches
from albums.services import bar_contents, trash_images
from imagehub.accounts import audit
from imagehub.errors import Conflict, Fault, Invalid, InvalidFields
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import send
from scraping.models import ImageOutcome, ScrapedImage, ScrapeJob
from scraping.services.folders import folder_of, thumbnails_of
from scraping.services.intake import look_and_take_in

APPROVED = "approved"
"""The reason on an item in state ``review`` that is about to be taken in. Without a reason it waits for a decision."""

REJECTED = "rejected"

TAKEN_DOWN = "taken_down"
"""The reason on a picture that somebody wants nobody to have."""

BATCH = 32
"""Pictures that are taken in by one transaction."""

LARGEST_ID = 2**63 - 1


class NothingToReview(Conflict):
    code = "nothing_to_review"
    title = "None of these pictures waits for a decision"


class NothingToSettle(Conflict):
    code = "nothing_to_settle"
    title = "There are no longer two pictures to choose between"


class Keep(StrEnum):
    """Which of two pictures that look the same is kept."""

    BOTH = "both"
    NEW = "new"
    OLD = "old"


class _Overtaken(Exception):
    """Somebody else has taken these pictures in, or takes them in just now."""


# ---- Decisions ----


def undecided(job: ScrapeJob) -> QuerySet[ScrapedImage]:
    """Return the pictures of a crawl that wait for a decision, in the order in which they were found."""
    return _in_review(job).filter(reason="").order_by("position")


def approved(job: ScrapeJob) -> QuerySet[ScrapedImage]:
    """Return the pictures of a crawl that somebody has approved, and that are not taken in yet."""
    return _in_review(job).filter(reason=APPROVED).order_by("position")


def decide(job: ScrapeJob, *, approve: Sequence[int], reject: Sequence[int]) -> None:
    """Approve and reject pictures of a crawl. Those that have their decision already keep it.

    Rejected ones are ``filtered`` at once; approved ones are taken in by the cluster ``default`` in a moment.

    Args:
        job: whose pictures they are. It may still go on.
        approve: keys of its items.
        reject: likewise.

    Raises:
        Invalid: nothing is named, one key is no item of this crawl, or one is named on both sides.
        NothingToReview: none of them waits for a decision any more.
    """
    _check(job, approve, reject)
    with transaction.atomic():
        _lock(job)
        welcome, unwanted = _waiting(job, approve), _waiting(job, reject)
        if not welcome and not unwanted:
            raise NothingToReview("None of these pictures waits for a decision any more.")
        for batch in in_batches(welcome):
            ScrapedImage.objects.filter(pk__in=batch).update(reason=APPROVED)
        for batch in in_batches(unwanted):
            ScrapedImage.objects.filter(pk__in=batch).update(state=ImageOutcome.FILTERED, reason=REJECTED)
        after = {
            "approved": len(welcome),
            "rejected": len(unwanted),
            "approved_items": welcome,
            "rejected_items": unwanted,
        }
        audit.record("scrapejob.review", job, after=after)
        if welcome:
            send(Cluster.DEFAULT, "scraping.tasks.take_in_approved", str(job.pk))
        else:
            transaction.on_commit(partial(_forget_files, job), robust=True)


def _check(job: ScrapeJob, approve: Sequence[int], reject: Sequence[int]) -> None:
    if not approve and not reject:
        raise Invalid("Name pictures to approve or to reject.", pointer="/approve", code="required")
    named = sorted({pk for pk in (*approve, *reject) if 0 < pk <= LARGEST_ID})
    known = {
        pk
        for batch in in_batches(named)
        for pk in ScrapedImage.objects.filter(job=job, pk__in=batch).values_list("pk", flat=True)
    }
    places = [(f"/approve/{place}", pk) for place, pk in enumerate(approve)]
    places += [(f"/reject/{place}", pk) for place, pk in enumerate(reject)]
    faults = [
        Fault(pointer, "The crawl has no such picture.", "unknown_item")
        for pointer, pk in places
        if pk not in known
    ]
    both = set(approve).intersection(reject)
    faults += [
        Fault(f"/reject/{place}", "The same picture is to be approved.", "contradiction")
        for place, pk in enumerate(reject)
        if pk in both and pk in known
    ]
    if faults:
        raise InvalidFields(faults)


def _waiting(job: ScrapeJob, keys: Sequence[int]) -> list[int]:
    """Return which of some items wait for a decision. Called under the lock of the crawl."""
    return [
        pk
        for batch in in_batches(sorted(set(keys)))
        for pk in undecided(job).filter(pk__in=batch).order_by("pk").values_list("pk", flat=True)
    ]


def _in_review(job: ScrapeJob) -> QuerySet[ScrapedImage]:
    return ScrapedImage.objects.filter(job=job, state=ImageOutcome.REVIEW)


def _lock(job: ScrapeJob) -> None:
    """Let nobody else decide on pictures of this crawl, or write what was approved, until the transaction ends.

    Whoever writes items of a crawl takes its row first, and the rows of items after it.
    """
    ScrapeJob.objects.select_for_update(no_key=True).filter(pk=job.pk).values_list("pk").get()


# ---- Taking in ----


def take_in_approved(job: ScrapeJob) -> int:
    """Take the approved pictures of a crawl into its album; return how many. Harmless when repeated, or twice at once.

    Of two who are at it, one finds its pictures taken when it is to write, writes nothing, and leaves the rest to the other.
    Whoever dies over it leaves the pictures as they were, for the next one.

    Raises:
        AlbumGone, OSError, StorageFull: see :func:`scraping.services.intake.look_and_take_in`.
    """
    taken = 0
    while items := list(approved(job)[:BATCH]):
        keys = {item.pk for item in items}
        for item in items:
            item.state, item.reason = ImageOutcome.SAVED, ""
        try:
            look_and_take_in(job, items, fence=partial(_hold, job, keys))
        except _Overtaken:
            return taken
        taken += len(items)
    _forget_files(job)
    return taken


def crawls_with_approved() -> QuerySet[ScrapeJob]:
    """Return the crawls of which pictures wait to be taken in."""
    waiting = ScrapedImage.objects.filter(job=OuterRef("pk"), state=ImageOutcome.REVIEW, reason=APPROVED)
    return (
        ScrapeJob.objects.filter(Exists(waiting), needs_review=True)
        .select_related("owner", "album")
        .defer("config")
        .order_by("pk")
    )


def _hold(job: ScrapeJob, keys: Iterable[int]) -> None:
    """Lock approved pictures in the transaction that takes them in.

    Raises:
        _Overtaken: one of them is not waiting any more.
    """
    _lock(job)
    rows = approved(job).filter(pk__in=keys).order_by("pk").select_for_update(no_key=True)
    if set(rows.values_list("pk", flat=True)) != set(keys):
        raise _Overtaken


def _forget_files(job: ScrapeJob) -> None:
    """Delete the pictures of a crawl that has ended, if nobody has to look at any of them: the library has what is wanted."""
    job.refresh_from_db(fields=["status"])
    if not job.is_finished or _in_review(job).exists():
        return
    for folder in (folder_of(job).pictures, thumbnails_of(job)):
        with suppress(OSError):  # it was never there, or is purged later with all the rest
            shutil.rmtree(folder)


# ---- Takedowns ----


def take_down(keys: Iterable[int], *, reason: str) -> int:
    """Turn away pictures that wait, approved or not, delete their files, and bar what is in them; return how many did wait.

    Those that have come into the library meanwhile, or were turned away, stay as they are. Called in a transaction.
    """
    items: dict[UUID, list[int]] = {}
    for batch in in_batches(sorted(set(keys))):
        waiting = ScrapedImage.objects.filter(pk__in=batch, state=ImageOutcome.REVIEW).order_by("pk")
        for pk, job in waiting.values_list("pk", "job_id"):
            items.setdefault(job, []).append(pk)
    jobs = ScrapeJob.objects.filter(pk__in=items).defer("config").order_by("pk")
    return sum(_take_down(job, items[job.pk], reason) for job in jobs)


def _take_down(job: ScrapeJob, keys: Sequence[int], reason: str) -> int:
    _lock(job)
    items = [
        item
        for batch in in_batches(keys)
        for item in _in_review(job).filter(pk__in=batch).order_by("pk").select_for_update(no_key=True)
    ]
    if not items:
        return 0
    for batch in in_batches(item.pk for item in items):
        ScrapedImage.objects.filter(pk__in=batch).update(state=ImageOutcome.FILTERED, reason=TAKEN_DOWN)
    bar_contents(item.sha256 for item in items)
    before = {"state": ImageOutcome.REVIEW.value}
    after = {"reason": reason, "count": len(items), "items": [item.pk for item in items]}
    audit.record("scrapejob.quarantine", job, before=before, after=after)
    transaction.on_commit(partial(_delete_pictures, job, items), robust=True)
    return len(items)


def _delete_pictures(job: ScrapeJob, items: Iterable[ScrapedImage]) -> None:
    """Delete the files of pictures, and all that is left of a crawl of which nobody has to look at anything any more."""
    for item in items:
        if "/" in item.file_name:  # the crawler has met the web: what it tells names no other file
            continue
        for path in (folder_of(job).pictures / item.file_name, thumbnails_of(job) / f"{item.sha256}.webp"):
            with suppress(OSError):  # it is gone already, or goes with the crawl
                path.unlink()
    _forget_files(job)


# ---- Look-alikes ----


def unsettled() -> QuerySet[ScrapedImage]:
    """Return the pictures that look like an image that was there, both of them still, and nobody has chosen."""
    return ScrapedImage.objects.filter(
        is_settled=False,
        resembles__isnull=False,
        resembles__deleted_at=None,
        image__isnull=False,
        image__deleted_at=None,
    )


def lookalikes(job: ScrapeJob) -> QuerySet[ScrapedImage]:
    """Return those of a crawl, in the order in which they were found, with both images."""
    return unsettled().filter(job=job).select_related("image", "resembles").order_by("position")


def settle(item: ScrapedImage, *, keep: Keep) -> None:
    """Choose between a picture and the image that it looks like: the one that is not kept goes into the trash.

    Raises:
        NothingToSettle: somebody has chosen already, or one of them is gone.
    """
    with transaction.atomic():
        current = lookalikes(item.job).select_for_update(no_key=True, of=("self",)).filter(pk=item.pk).first()
        if current is None or current.image is None or current.resembles is None:
            raise NothingToSettle("Somebody has chosen between these pictures, or one of them is gone.")
        ScrapedImage.objects.filter(pk=current.pk).update(is_settled=True)
        after = {
            "item": current.pk,
            "keep": keep.value,
            "new": current.image.pk,
            "old": current.resembles.pk,
        }
        audit.record("scrapejob.settle", item.job, after=after)
        if keep == Keep.NEW:
            trash_images([current.resembles.pk])
        elif keep == Keep.OLD:
            trash_images([current.image.pk])
