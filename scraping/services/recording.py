"""What the crawler of one job tells, written down by threads of its own, so that the crawler never waits for it."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, transaction
from django.db.models import Max

from imagehub.jobs.lease import Lease
from scraping.models import ImageOutcome, ScrapedImage, ScrapedPage, ScrapeJob, address_key
from scraping.services.comparing import note_lookalikes
from scraping.services.intake import LookedAt, look_at, take_in
from scraping.services.told import ToldImage, ToldPage

logger = logging.getLogger(__name__)

PICTURES = 32
"""At most so many pictures are taken in by one transaction."""

ENDS = 200
"""At most so many ends of addresses are written by one transaction."""

PATIENCE_SECONDS = 1.0
"""So long a batch waits until it is full."""

MOST_WAITING = 5_000
"""Ends that may wait to be written. Beyond that the crawler waits, too."""

AHEAD = 2
"""So many batches are looked at before those before them are written."""

TOLD_AGAIN = [
    "state", "reason", "status", "attempts", "fetched_at", "page_url", "final_url", "redirects", "robots", "opt_out",
    "depth", "images_found", "links_found",
]  # fmt: skip
"""What a later attempt may say differently about a page."""

_END = object()


class _ReviewWanted(Exception):
    """Somebody has to look at the pictures of this crawl, from now on."""


@dataclass
class _Batch:
    """Ends that are written together. Its pictures are looked at; the stack holds what that has left on the disk."""

    pages: list[ScrapedPage]
    items: list[ScrapedImage]
    looked_at: LookedAt
    stack: ExitStack = field(repr=False)


class Recorder:
    """Takes in the ends of addresses as they are told, in order, batch by batch.

    One thread looks at pictures while another one writes those that were looked at before. Each batch is written under the lease
    of the job. What an attempt before this one has written is told once more by a crawler that goes on, and is not written again.
    """

    def __init__(self, job: ScrapeJob, lease: Lease) -> None:
        self._job = job
        self._lease = lease
        self._ends: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._batches: queue.Queue[_Batch | None] = queue.Queue(AHEAD)
        self._threads = [
            self._thread(self._look, "scraping-look"),
            self._thread(self._write, "scraping-write"),
        ]
        self._next_position = 0
        self._error: BaseException | None = None
        self._is_cancelled = False
        self.is_incomplete = False
        """It has stopped before everything was written: another attempt hears it all again."""

    def start(self) -> None:
        last = ScrapedImage.objects.filter(job=self._job).aggregate(last=Max("position"))["last"]
        self._next_position = 0 if last is None else last + 1
        for thread in self._threads:
            thread.start()

    def take(self, end: ToldImage | ToldPage) -> None:
        """Take the end of an address. Waits while too many are still to be written."""
        while self._ends.qsize() > MOST_WAITING and self._error is None:
            time.sleep(0.02)
        self._ends.put(end)

    def raise_error(self) -> None:
        """Raise what has ended the writing, if something has."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until everything is written, and raise what has gone wrong.

        Where the job is cancelled meanwhile, pictures that nobody has looked at yet are left out; where the cluster stops, all that
        is not written is left to the next attempt (``is_incomplete``).

        Raises:
            AlbumGone, StorageFull: see :func:`scraping.services.intake.take_in`.
            LeaseLost: the job was given to somebody else.
        """
        self._ends.put(_END)
        while any(thread.is_alive() for thread in self._threads):
            self._threads[-1].join(0.2)
            if self._lease.should_stop():
                self._is_cancelled = self._lease.cancel_requested
                self.is_incomplete = not self._is_cancelled
        self.raise_error()

    # ---- The thread that looks at pictures ----

    def _look(self) -> None:
        try:
            is_last = False
            while not is_last and self._error is None:
                ends, is_last = self._gather()
                if ends and not self.is_incomplete:
                    self._hand_over(self._prepare(ends))
        finally:
            self._hand_over(None)

    def _gather(self) -> tuple[list[ToldImage | ToldPage], bool]:
        """Wait for ends; return some of them, and whether they are the last."""
        ends: list[ToldImage | ToldPage] = []
        pictures, deadline = 0, None
        while len(ends) < ENDS and pictures < PICTURES:
            try:
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
                end = self._ends.get(timeout=timeout)
            except queue.Empty:
                break
            if end is _END:
                return ends, True
            ends.append(end)
            pictures += end.state == ImageOutcome.SAVED
            deadline = deadline or time.monotonic() + PATIENCE_SECONDS
        return ends, False

    def _prepare(self, ends: Sequence[ToldImage | ToldPage]) -> _Batch:
        pages = {end.url: end.row(self._job) for end in ends if isinstance(end, ToldPage)}
        items = self._items({end.url: end for end in ends if isinstance(end, ToldImage)})
        saved = [item for item in items if item.state == ImageOutcome.SAVED]
        if self._is_cancelled:
            for item in saved:
                item.state, item.reason = ImageOutcome.SKIPPED, "cancelled"
        elif self._job.needs_review:
            self._let_wait(items)
        stack = ExitStack()
        looked_at = stack.enter_context(look_at(self._job, items))
        return _Batch(list(pages.values()), items, looked_at, stack)

    def _items(self, ends: dict[str, ToldImage]) -> list[ScrapedImage]:
        """Return rows for what is told, but for those that an earlier attempt has written."""
        rows = ScrapedImage.objects.filter(job=self._job, key__in=map(address_key, ends))
        known = {item.url: item for item in rows}
        items = []
        for url, end in ends.items():
            row = known.get(url)
            if row is None:
                items.append(end.row(self._job, self._next_position))
                self._next_position += 1
            elif row.state in (ImageOutcome.SKIPPED, ImageOutcome.FAILED):
                items.append(end.row(self._job, row.position, row))
        return items

    def _hand_over(self, batch: _Batch | None) -> None:
        while True:
            try:
                self._batches.put(batch, timeout=0.2)
            except queue.Full:
                if self._error is None:
                    continue
                if batch is not None:
                    batch.stack.close()
            return

    # ---- The thread that writes ----

    def _write(self) -> None:
        while (batch := self._batches.get()) is not None:
            with batch.stack:
                if self._error is None and not self.is_incomplete:
                    self._guard(lambda batch=batch: self._record(batch))  # type: ignore[misc]

    def _record(self, batch: _Batch) -> None:
        if batch.pages:
            with transaction.atomic():
                self._lease.hold()
                ScrapedPage.objects.bulk_create(
                    batch.pages, update_conflicts=True, unique_fields=["job", "key"], update_fields=TOLD_AGAIN
                )
        if not batch.items:
            return
        try:
            take_in(self._job, batch.items, batch.looked_at, fence=self._fence)
        except _ReviewWanted:
            self._let_wait(batch.items)
            take_in(self._job, batch.items, batch.looked_at, fence=self._lease.hold)

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

    # ---- Both ----

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        context = copy_context()  # so that what is logged says for which job

        def run() -> None:
            try:
                self._guard(work)
            finally:
                connections.close_all()

        return threading.Thread(target=context.run, args=[run], name=name, daemon=True)

    def _guard(self, work: Callable[[], None]) -> None:
        """Do something, and keep what has gone wrong with it for the thread that waits."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it is
            self._error = self._error or error
