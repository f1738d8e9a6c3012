"""What the crawler of one job tells, written down by a thread of its own, so that the crawler never waits for it."""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from django.db import connections, transaction
from django.db.models import Max

from imagehub.jobs.lease import Lease
from scraping.models import (
    ImageOutcome,
    PageOutcome,
    ScrapedImage,
    ScrapedPage,
    ScrapeJob,
    address_key,
    domain_key,
)
from scraping.services.comparing import note_lookalikes
from scraping.services.intake import take_in

BATCH = 32
"""Pictures, and other ends, that are written in one transaction."""

PATIENCE_SECONDS = 1.0
"""So long a batch waits until it is full."""

TOLD_AGAIN = ["state", "reason", "status", "attempts", "fetched_at", "images_found", "links_found"]
"""What a later attempt may say differently about a page."""

Event = Mapping[str, Any]

_END = object()


class _ReviewWanted(Exception):
    """Somebody has to look at the pictures of this crawl, from now on."""


class Recorder:
    """Takes in the ends of addresses as they are told, in order, batch by batch.

    Each batch is written under the lease of the job. What an attempt before this one has written is told once more by a crawler
    that goes on, and is not written again.
    """

    def __init__(self, job: ScrapeJob, lease: Lease) -> None:
        self._job = job
        self._lease = lease
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="scraping-intake", daemon=True)
        self._next_position = 0
        self._error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def take(self, event: Event) -> None:
        """Take the end of an address."""
        self._events.put(event)

    def raise_error(self) -> None:
        """Raise what has ended the writing, if something has."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until everything is written, and raise what has gone wrong.

        Raises:
            AlbumGone, StorageFull: see :func:`scraping.services.intake.take_in`.
            LeaseLost: the job was given to somebody else.
        """
        self._events.put(_END)
        self._thread.join()
        self.raise_error()

    def _run(self) -> None:
        try:
            last = ScrapedImage.objects.filter(job=self._job).aggregate(last=Max("position"))["last"]
            self._next_position = 0 if last is None else last + 1
            is_last = False
            while not is_last:
                batch, is_last = self._batch()
                self._record(batch)
        except BaseException as error:  # noqa: BLE001 - the thread that waits for this one raises it
            self._error = error
        finally:
            connections.close_all()

    def _batch(self) -> tuple[list[Event], bool]:
        """Wait for events; return some of them, and whether they are the last."""
        batch: list[Event] = []
        deadline = float("inf")
        while len(batch) < BATCH:
            try:
                timeout = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
                event = self._events.get(timeout=timeout)
            except queue.Empty:
                break
            if event is _END:
                return batch, True
            batch.append(event)
            deadline = min(deadline, time.monotonic() + PATIENCE_SECONDS)
        return batch, False

    def _record(self, batch: Sequence[Event]) -> None:
        pages = {event["url"]: page_of(self._job, event) for event in batch if event["event"] == "page"}
        if pages:
            with transaction.atomic():
                self._lease.hold()
                ScrapedPage.objects.bulk_create(
                    pages.values(),
                    update_conflicts=True,
                    unique_fields=["job", "key"],
                    update_fields=TOLD_AGAIN,
                )
        items = self._items({event["url"]: event for event in batch if event["event"] == "item"})
        if not items:
            return
        if self._job.needs_review:
            self._let_wait(items)
        try:
            take_in(self._job, items, fence=self._fence)
        except _ReviewWanted:
            self._let_wait(items)
            take_in(self._job, items, fence=self._lease.hold)

    def _let_wait(self, items: Sequence[ScrapedImage]) -> None:
        """Let the pictures among some items wait for somebody to approve of them."""
        saved = [item for item in items if item.state == ImageOutcome.SAVED]
        for item in saved:
            item.state = ImageOutcome.REVIEW
        note_lookalikes(self._job, saved)

    def _fence(self) -> None:
        """Hold the lease, and see whether pictures may still be taken in unseen: a takedown changes that while the crawl runs.

        Raises:
            LeaseLost: see ``Lease``.
            _ReviewWanted: they may not any more.
        """
        self._lease.hold()
        if not self._job.needs_review:
            self._job.refresh_from_db(fields=["needs_review"])
            if self._job.needs_review:
                raise _ReviewWanted

    def _items(self, events: Mapping[str, Event]) -> list[ScrapedImage]:
        """Return rows for what is told, but for those that an earlier attempt has written."""
        rows = ScrapedImage.objects.filter(job=self._job, key__in=map(address_key, events))
        known = {item.url: item for item in rows}
        items = []
        for url, event in events.items():
            item = known.get(url)
            if item is None:
                item = item_of(self._job, event, self._next_position)
                self._next_position += 1
            elif item.state not in (ImageOutcome.SKIPPED, ImageOutcome.FAILED):
                continue
            else:
                item = item_of(self._job, event, item.position, row=item)
            items.append(item)
        return items


def item_of(job: ScrapeJob, event: Event, position: int, *, row: ScrapedImage | None = None) -> ScrapedImage:
    """Return the row of a picture, unsaved, or a row that is there as the event has it."""
    item = row or ScrapedImage(job=job)
    _fill(item, event, ImageOutcome)
    item.position = position
    item.page_domain = domain_key(_host(event.get("page_url", "")))
    item.origin = _text(event, "origin", 20)
    item.captions = [
        {"text": str(one.get("text", "")), "origin": str(one.get("origin", ""))}
        for one in event.get("captions", ())
    ]
    item.licence = _text(event, "licence")
    item.sha256 = _text(event, "sha256", 64)
    item.format = _text(event, "format", 4)
    item.fingerprint = _text(event, "fingerprint", 112)
    item.duplicate_of = _text(event, "duplicate_of", 64)
    item.size_bytes, item.width, item.height = (
        _count(event, name) for name in ("size_bytes", "width", "height")
    )
    return item


def page_of(job: ScrapeJob, event: Event) -> ScrapedPage:
    """Return the row of a page, unsaved."""
    page = ScrapedPage(job=job)
    _fill(page, event, PageOutcome)
    page.depth = min(_count(event, "depth"), 32_767)
    page.images_found, page.links_found = _count(event, "images_found"), _count(event, "links_found")
    return page


def _fill(
    row: ScrapedImage | ScrapedPage, event: Event, outcomes: type[ImageOutcome] | type[PageOutcome]
) -> None:
    """Take over what pictures and pages have in common.

    Raises:
        ValueError: the state is none.
    """
    row.url = str(event["url"])
    row.key = address_key(row.url)
    row.domain = domain_key(_host(row.url))
    row.state = outcomes(event["state"])
    row.reason = _text(event, "reason", 40)
    row.page_url, row.final_url = _text(event, "page_url"), _text(event, "final_url")
    row.redirects = [str(url) for url in event.get("redirects", ())]
    status = event.get("status")
    row.status = status if isinstance(status, int) and 0 <= status <= 999 else None
    row.robots, row.opt_out = _text(event, "robots", 20), _text(event, "opt_out", 20)
    row.attempts = min(_count(event, "attempts"), 32_767)
    row.fetched_at = datetime.fromtimestamp(float(event["at"]), UTC)


def _text(event: Event, name: str, longest: int | None = None) -> str:
    value = event.get(name)
    return value[:longest] if isinstance(value, str) else ""


def _count(event: Event, name: str) -> int:
    value = event.get(name)
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".")
