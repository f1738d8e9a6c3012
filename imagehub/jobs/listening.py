"""Telling many listeners how jobs go: one look at the database for all of them, and no thread for any.

A process that serves streams has one ``Hub``. While anybody listens, it reads the rows of the jobs that are listened to a few
times a second, on one thread with one lasting connection, and wakes those whose job has changed. What is sent follows from the
row alone, so nothing is stored for it, any web process can continue what another began, and a restart loses nothing.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import Error as DatabaseError

from imagehub.concurrency import ConcurrencyLimit
from imagehub.database import drop_connections
from imagehub.jobs import live
from imagehub.jobs.models import Job, JobStatus
from imagehub.jobs.outlook import Outlook, look_ahead
from imagehub.jobs.registry import JobKind

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
"""How often the rows are read while somebody listens."""

LONGEST_PAUSE_SECONDS = 2.0
"""However long a look took, the next one follows after so long."""

OUTLOOK_SECONDS = 2.0
"""How often the places of waiting jobs are looked up, which costs more."""

WATCH_SECONDS = 5.0
"""How often workers are told that somebody watches; they believe it for ``live.WATCHED``."""

QUIET_SECONDS = 15.0
"""After so long without an event a listener is given None, so that whatever lies between knows the stream is alive."""

AGAIN_SECONDS = 60.0
"""How often it is asked whether a listener may still listen."""


@dataclass(frozen=True)
class Stage:
    """How far a job's life has come: all that matters of it for the order of its transitions."""

    status: str
    attempt: int

    def until(self, now: "Stage") -> "Iterator[Stage]":
        """Yield each stage that was entered after this one, the last being ``now``.

        Between two looks a job may go through several. The life cycle leaves no choice which: whoever is at a later attempt
        was queued again in between. A worker that hands a job back takes its attempt back too, as if it had never begun.
        """
        if now == self:
            return
        status, attempt = self.status, self.attempt
        if status == JobStatus.PENDING and now.status != JobStatus.CANCELLED:
            status = JobStatus.QUEUED
            yield Stage(status, attempt)
        while attempt < now.attempt:
            if status == JobStatus.RUNNING:
                yield Stage(JobStatus.QUEUED, attempt)
            status, attempt = JobStatus.RUNNING, attempt + 1
            yield Stage(status, attempt)
        if Stage(status, attempt) != now:
            yield now


@dataclass(frozen=True)
class News:
    """What a look at one job showed."""

    stage: Stage
    facts: Mapping[str, Any]
    """What a poll of the job answers too: ``status``, ``progress``, ``step`` and so on."""
    preview: live.Preview | None = None

    @property
    def has_ended(self) -> bool:
        return self.stage.status in JobStatus.FINISHED


@dataclass(frozen=True)
class Event:
    """Something to tell: ``state``, ``progress`` or ``preview``."""

    name: str
    stage: Stage
    data: Mapping[str, Any]


def events_between(before: News | Stage | None, now: News) -> Iterator[Event]:
    """Yield what is new to somebody who was told of ``before``: all of it, or the stage alone, in an earlier stream."""
    seen = before.stage if isinstance(before, News) else before
    path = list(seen.until(now.stage)) if seen else [now.stage]
    for entered in path[:-1]:  # gone by already
        yield Event("state", entered, {"status": entered.status, "attempt": entered.attempt})
    if path:
        yield Event("state", now.stage, now.facts)
    elif not isinstance(before, News) or before.facts != now.facts:
        yield Event("progress", now.stage, now.facts)
    if now.preview is not None and not (isinstance(before, News) and before.preview == now.preview):
        yield Event("preview", now.stage, {"step": now.preview.step, "image": now.preview.url})


def facts_of(job: Job, outlook: Outlook) -> dict[str, Any]:
    """Return what changes while a job waits and runs, under the names that a poll has for it."""
    return {
        "status": job.status,
        "attempt": job.attempt,
        "progress": job.progress,
        "step": job.step,
        "total_steps": job.total_steps,
        "message": job.message,
        "eta_seconds": outlook.eta_seconds if outlook.position is not None else job.eta_seconds,
        "queue_position": outlook.position,
        "possible": outlook.is_possible,
        "reason": outlook.reason,
        "error": {"code": job.error_code, "detail": job.error_detail} if job.error_code else None,
    }


def look(
    kind: JobKind, jobs: Iterable[UUID], known: Mapping[UUID, Outlook] | None = None
) -> dict[UUID, News]:
    """Look at some jobs, by a number of queries that does not depend on how many there are.

    Args:
        kind: what they are.
        jobs: which.
        known: what lay ahead of them a moment ago, good enough for those that still wait; None: look that up too.
    """
    rows = list(kind.model._default_manager.filter(pk__in=list(jobs)).defer("error_trace"))
    ahead = look_ahead(kind, rows) if known is None else known
    running = [row for row in rows if row.status == JobStatus.RUNNING]
    previews = live.previews(running) if running else {}
    return {
        row.pk: News(
            Stage(row.status, row.attempt), facts_of(row, _current(row, ahead)), previews.get(row.pk)
        )
        for row in rows
    }


def _current(row: Job, ahead: Mapping[UUID, Outlook]) -> Outlook:
    """Return what lies ahead of a job now, from what is known of a moment ago."""
    if row.status == JobStatus.RUNNING:  # whatever stood in its way does so no more
        return Outlook(position=0, eta_seconds=row.eta_seconds)
    outlook = ahead.get(row.pk, Outlook())
    has_moved = outlook.position == 0  # it ran when that was looked up
    return Outlook() if row.is_finished or has_moved else outlook


class Listener:
    """One who listens to one job."""

    def __init__(self, job: UUID, told: News) -> None:
        self.job = job
        self._told = self._latest = told
        self._changed = asyncio.Event()
        self.is_gone = False

    def tell(self, news: News | None) -> None:
        """Take the latest news; without any the job is gone. A slow listener skips what is out of date, but no stage."""
        if news is None:
            self.is_gone = True
        elif news != self._latest:
            self._latest = news
        else:
            return
        self._changed.set()

    async def take(self) -> list[Event]:
        """Wait for something new, and return it; nothing, if it stayed quiet for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                await self._changed.wait()
        self._changed.clear()
        before, self._told = self._told, self._latest
        return list(events_between(before, self._told))

    @property
    def has_ended(self) -> bool:
        return self.is_gone or self._told.has_ended


class Hub:
    """Looks at the jobs that are listened to, and tells those who listen. One for each event loop."""

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[JobKind, set[Listener]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="listening")
        self._outlooks: dict[str, dict[UUID, Outlook]] = {}
        self._outlooks_due = self._watch_due = 0.0

    async def listen(
        self, kind: JobKind, job: UUID, told: News, *, may_listen: Callable[[], bool]
    ) -> AsyncIterator[Event | None]:
        """Yield what happens to a job until it has ended, and None where nothing has happened for a while.

        Args:
            kind: what the job is.
            job: which.
            told: what the listener knows already.
            may_listen: asked once a minute, on the hub's thread. When it says no, the stream ends.
        """
        listener = Listener(job, told)
        _, listeners = self._listeners.setdefault(kind.name, (kind, set()))
        listeners.add(listener)
        self._outlooks_due = self._watch_due = 0.0  # somebody new is told at once
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_again_and_again())
        asked_at = time.monotonic()
        try:
            while not listener.has_ended:
                events = await listener.take()
                for event in events:
                    yield event
                if not events:
                    yield None
                if time.monotonic() - asked_at >= AGAIN_SECONDS:
                    asked_at = time.monotonic()
                    if not await self._on_thread(may_listen):
                        return
        finally:
            listeners.discard(listener)

    async def _look_again_and_again(self) -> None:
        try:
            while wanted := self._wanted():
                started = time.monotonic()
                found = await self._on_thread(self._look_in_peace, wanted)
                if found is not None:
                    self._tell(wanted, found)
                took = time.monotonic() - started
                await asyncio.sleep(min(max(LOOK_SECONDS, 4 * took), LONGEST_PAUSE_SECONDS))
        finally:
            self._thread.submit(drop_connections)

    def _look_in_peace(self, wanted: Mapping[str, tuple[JobKind, set[UUID]]]) -> Any:
        """Look at all that is wanted, or return None where the database does not answer; on the thread."""
        try:
            return self._look(wanted)
        except DatabaseError as error:
            logger.warning("Listeners wait for the database (%s)", type(error).__name__)
            drop_connections()
            return None
        except Exception:
            logger.exception("A look at the jobs that are listened to failed")
            return None

    def _wanted(self) -> dict[str, tuple[JobKind, set[UUID]]]:
        wanted = {
            name: (kind, {listener.job for listener in listeners})
            for name, (kind, listeners) in self._listeners.items()
        }
        return {name: (kind, jobs) for name, (kind, jobs) in wanted.items() if jobs}

    def _look(self, wanted: Mapping[str, tuple[JobKind, set[UUID]]]) -> dict[str, dict[UUID, News]]:
        """Look at all that is wanted; on the thread."""
        now = time.monotonic()
        if now >= self._watch_due:
            self._watch_due = now + WATCH_SECONDS
            live.watch(job for _, jobs in wanted.values() for job in jobs)
        if now >= self._outlooks_due:
            self._outlooks_due = now + OUTLOOK_SECONDS
            self._outlooks = {
                name: look_ahead(kind, list(kind.model._default_manager.filter(pk__in=jobs)))
                for name, (kind, jobs) in wanted.items()
            }
        return {
            name: look(kind, jobs, known=self._outlooks.get(name, {}))
            for name, (kind, jobs) in wanted.items()
        }

    def _tell(
        self, asked: Mapping[str, tuple[JobKind, set[UUID]]], found: Mapping[str, Mapping[UUID, News]]
    ) -> None:
        for name, (_, jobs) in asked.items():
            for listener in list(self._listeners[name][1]):
                if listener.job in jobs:  # who came meanwhile is told next time
                    listener.tell(found[name].get(listener.job))

    async def _on_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """Return the hub of the running event loop."""
    return _hubs.setdefault(asyncio.get_running_loop(), Hub())


class Seats:
    """How many streams of this process each user has open."""

    def __init__(self) -> None:
        self._taken: dict[int, int] = defaultdict(int)
        self._lock = threading.Lock()

    def take(self, user: int, limit: int) -> None:
        """Count one more; a limit of 0 is none.

        Raises:
            ConcurrencyLimit: the user has as many as one may.
        """
        with self._lock:
            if 0 < limit <= self._taken[user]:
                raise ConcurrencyLimit(limit)
            self._taken[user] += 1

    def leave(self, user: int) -> None:
        with self._lock:
            self._taken[user] -= 1
            if not self._taken[user]:
                del self._taken[user]


seats = Seats()
