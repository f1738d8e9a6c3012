"""One crawl: workers for each host take addresses from the frontier, and bring each picture to exactly one end."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from albums.decoding.formats import format_of
from imagehub.jobs.protocol import HEARTBEAT_SECONDS
from scraping.crawler.assignment import Assignment, CrawlFolder
from scraping.crawler.content import Content
from scraping.crawler.entries import image_entry, page_entry, targets_of
from scraping.crawler.extraction import extract
from scraping.crawler.feeds import extract_feed, is_xml
from scraping.crawler.fetching import Budget, Fetched, FetchEnded, Fetcher, Trail
from scraping.crawler.frontier import Frontier, Target, seeds
from scraping.crawler.journal import Entry, Journal
from scraping.crawler.pictures import Collection, Picture, Unwanted, examine, store

logger = logging.getLogger(__name__)

WORKERS_PER_HOST = 2
"""As many as connections: more would only wait."""

PROGRESS_SECONDS = 0.5

TEXTS = ("text/html", "application/xhtml+xml", "text/plain", "")


class Crawl:
    """Carries out one assignment. Belongs to the event loop it runs in."""

    def __init__(
        self,
        folder: CrawlFolder,
        assignment: Assignment,
        fetcher: Fetcher,
        budget: Budget,
        emit: Callable[..., None],
    ) -> None:
        self.frontier = Frontier(assignment)
        self._folder = folder
        self._assignment = assignment
        self._fetcher = fetcher
        self._budget = budget
        self._emit = emit
        self._journal = Journal(folder.journal)
        self._collection = Collection(assignment.known_hashes)
        self._seen = frozenset(assignment.seen_urls)
        self._workers: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
        self._files: set[str] = set()
        """The names of the pictures that were saved."""
        self._last_progress = 0.0

    async def run(self) -> str:
        """Crawl until nothing is left, a cap is reached or somebody calls ``stop``; return which.

        ``finished``, ``image_limit``, ``byte_limit``, ``time_limit``, ``cancelled`` or ``stopped``. After all but the last
        every address that was found has come to its end.

        Raises:
            ParentSilent: nobody says what may be fetched.
            OSError: a file cannot be written.
        """
        self._folder.pictures.mkdir(parents=True, exist_ok=True)
        self._resume()
        for target in seeds(self._assignment):
            self._add(target)
        heart = asyncio.create_task(self._beat())
        try:
            self._check_end()
            self._employ_all()
            done, _ = await asyncio.wait({self._end}, timeout=self._assignment.caps.seconds)
            reason = self._end.result() if done else "time_limit"
        finally:
            heart.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._threads.shutdown()
        if reason != "stopped":
            for target in self.frontier.drain():
                self._skip(target, "page_limit" if reason == "finished" else reason)
        self._tidy()
        self._tell_progress(at_once=True)
        self._journal.close()
        return reason

    def stop(self) -> None:
        """Begin no request any more, and let ``run`` return. What is on its way is left for another attempt."""
        self._finish("stopped")

    def cancel(self) -> None:
        """Begin no request any more, and let ``run`` return. There will be no other attempt."""
        self._finish("cancelled")

    def _finish(self, reason: str) -> None:
        if not self._end.done():
            self._end.set_result(reason)

    def _check_end(self) -> None:
        if self._budget.is_spent:
            self._finish("byte_limit")
        elif self.frontier.has_all_images:
            self._finish("image_limit")

    def _employ_all(self) -> None:
        """Start workers wherever there is something for them to do; without any, the crawl has come to its end."""
        for host in self.frontier.hosts():
            self._employ(host)
        if not self._tasks:
            self._finish("finished")

    def _employ(self, host: str) -> None:
        """Start workers for a host, unless it has enough of them or nothing may begin there."""
        while self._workers[host] < WORKERS_PER_HOST and not self._end.done():
            target = self.frontier.pop(host)
            if target is None:
                return
            self._workers[host] += 1
            task = asyncio.create_task(self._work(host, target))
            self._tasks.add(task)
            task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        """A worker has ended: that may have been the last, or it may have made room for others."""
        self._tasks.discard(task)
        if task.cancelled() or self._end.done():
            return
        if (error := task.exception()) is not None:
            self._end.set_exception(error)
        elif not self._tasks:
            self._employ_all()

    async def _work(self, host: str, target: Target | None) -> None:
        """Take care of one address of a host after the other."""
        try:
            while target is not None and not self._end.done():
                await self._take_care(target)
                self._check_end()
                self._tell_progress()
                target = None if self._end.done() else self.frontier.pop(host)
        finally:
            self._workers[host] -= 1

    async def _take_care(self, target: Target) -> None:
        try:
            if target.kind == "page":
                await self._visit(target)
            else:
                limit = self._assignment.caps.image_bytes
                await self._keep(target, await self._fetcher.fetch(target.url, "image", limit))
        except FetchEnded as ended:
            if ended.may_retry and target.attempts + 1 < self._assignment.attempts:
                self.frontier.put_back(target)
            else:
                self._close(target, ended.state, ended.reason, ended.trail)
        finally:
            if target.kind == "image" and self.frontier.has_room_for_images:
                for host in self.frontier.hosts():  # workers have gone where there was none before
                    self._employ(host)

    async def _visit(self, target: Target) -> None:
        """Read a page, and note what it shows and where it leads."""
        caps = self._assignment.caps
        # What somebody has named may be a picture as well as a page, and then it may be as large as one.
        limit = caps.page_bytes if target.page_url else max(caps.page_bytes, caps.image_bytes)
        fetched = await self._fetcher.fetch(target.url, "page", limit)
        if fetched.content_type.startswith("image/") or format_of(fetched.body[:12]):
            if self.frontier.turns_out_image(target):
                await self._keep(target, fetched)
            else:
                self._close(target, "skipped", "image_limit", fetched.trail)
            return
        if len(fetched.body) > caps.page_bytes:
            self._close(target, "filtered", "too_many_bytes", fetched.trail)
            return
        try:
            content = await self._in_thread(_read, fetched)
        except Exception:
            # One page that the reader stumbles over is no reason to give all others up.
            logger.exception("A page could not be read")
            content = None
        if content is None:
            self._close(target, "failed", "not_a_page", fetched.trail)
            return
        opt_out = fetched.trail.opt_out or content.opt_out
        entry = page_entry(target, fetched.trail, "visited", "", content, opt_out)
        self._note(entry)
        for host in self._discover(entry):
            self._employ(host)
        self.frontier.end(target, "visited")

    def _discover(self, entry: Entry) -> set[str]:
        """Note what a page holds, and return the hosts for which there is something new.

        A picture of a page that opts out comes to its end at once.
        """
        hosts: set[str] = set()
        if not entry["page_url"]:
            self.frontier.adopt(entry["final_url"])
        for target in targets_of(entry):
            if target.kind == "page":
                if not self.frontier.may_visit(target.url, target.depth):
                    continue
            elif target.opt_out and self._assignment.obey_opt_outs:
                if self.frontier.know(target.url):
                    self._note(image_entry(target, Trail(target.url), "opted_out", target.opt_out))
                    self.frontier.count("image", "opted_out")
                continue
            if self._add(target):
                hosts.add(target.host)
        return hosts

    def _add(self, target: Target) -> bool:
        """Note an address. Returns False where there is nothing to do for it: it is known, or its picture there already."""
        if target.kind == "page" or target.url not in self._seen:
            return self.frontier.add(target)
        if self.frontier.know(target.url):
            self._note(image_entry(target, Trail(target.url), "duplicate", "seen"))
            self.frontier.count("image", "duplicate")
        return False

    async def _keep(self, target: Target, fetched: Fetched) -> None:
        """Look at what was downloaded as a picture, and store it if it is wanted."""
        trail = fetched.trail
        if (opt_out := trail.opt_out or target.opt_out) and self._assignment.obey_opt_outs:
            self._close(target, "opted_out", opt_out, trail)
            return
        try:
            picture: Picture = await self._in_thread(examine, fetched.body, self._assignment.sizes)
        except Unwanted as unwanted:
            self._close(target, "filtered", unwanted.reason, trail)
            return
        judgement = self._collection.judge(picture)
        if judgement.reason:
            entry = image_entry(target, trail, "duplicate", judgement.reason, picture)
            self._note(entry | {"duplicate_of": judgement.duplicate_of})
            self.frontier.end(target, "duplicate")
            return
        # Before anybody else can come with the same picture, and before this waits for anything.
        self._collection.keep(picture.sha256, picture.fingerprint, picture.width * picture.height)
        await self._in_thread(store, fetched.body, picture, self._folder.pictures)
        self._files.add(picture.name)
        entry = image_entry(target, trail, "saved", "", picture)
        self._note(entry | {"near_duplicate_of": judgement.near_duplicate_of})
        self.frontier.end(target, "saved")

    def _close(self, target: Target, state: str, reason: str, trail: Trail) -> None:
        """Bring an address to an end without a file."""
        make = image_entry if target.kind == "image" else page_entry
        self._note(make(target, trail, state, reason))
        self.frontier.end(target, state)

    def _skip(self, target: Target, reason: str) -> None:
        make = image_entry if target.kind == "image" else page_entry
        self._note(make(target, Trail(target.url), "skipped", reason))
        self.frontier.count(target.kind, "skipped")

    def _note(self, entry: Entry) -> None:
        """Write an end down, and tell of it."""
        self._journal.write(entry)
        self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        kind = "item" if entry["kind"] == "image" else "page"
        hidden = ("kind", "links", "pictures", "received")
        self._emit(kind, **{name: value for name, value in entry.items() if name not in hidden})

    def _resume(self) -> None:
        """Take over what an earlier attempt has done, and tell of it."""
        entries = {entry["url"]: entry for entry in self._journal.read()}
        done = [entry for entry in entries.values() if self._still_holds(entry)]
        self._emit("started", resumed=len(done))
        for entry in done:
            self.frontier.know(entry["url"])
            self.frontier.count(entry["kind"], entry["state"])
            self._budget.spend(entry["received"])
            if entry["kind"] == "page":
                self.frontier.begun_before()
            if entry["state"] == "saved":
                self._collection.remember(entry)
                self._files.add(entry["file"])
            self._tell(entry)
        self._journal.open()
        self._tidy()
        for entry in done:
            if entry["state"] == "visited":
                self._discover(entry)

    def _still_holds(self, entry: Entry) -> bool:
        """Tell whether nothing is left to do for what was written down. There may be room now for what was skipped."""
        if entry["state"] == "saved":
            return (self._folder.pictures / entry["file"]).exists()
        return entry["state"] != "skipped"

    def _tidy(self) -> None:
        """Delete files of which nothing was written down: their crawler was killed, or broken off, just then."""
        for file in self._folder.pictures.iterdir():
            if file.name not in self._files:
                file.unlink()

    def _tell_progress(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._last_progress < PROGRESS_SECONDS:
            return
        self._last_progress = now
        frontier = self.frontier
        self._emit(
            "progress",
            counts=dict(frontier.counts),
            pages=dict(frontier.page_counts),
            found=frontier.found,
            pages_known=frontier.pages_known,
            truncated=frontier.is_truncated,
        )

    async def _beat(self) -> None:
        """Say that the event loop runs, which a thread could not know."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._emit("heartbeat")

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _read(fetched: Fetched) -> Content | None:
    """Return what a page holds, or None if it is no page."""
    url, kind = fetched.trail.url, fetched.content_type.partition(";")[0].strip()
    if is_xml(fetched.body, kind):
        return extract_feed(fetched.body, url)
    if kind in TEXTS and b"\0" not in fetched.body[:1024]:
        return extract(fetched.body, url, fetched.encoding)
    return None
