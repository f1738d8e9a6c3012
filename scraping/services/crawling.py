"""Carrying out claimed crawls: the crawler is started, answered, listened to and judged; the rows tell how it goes."""

import logging
import shutil
import signal
import sys
from collections import Counter
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Q
from pydantic import ValidationError

from imagehub.config import get_config
from imagehub.jobs import stopping
from imagehub.jobs.child import (
    Child,
    ChildDied,
    ChildLimits,
    ChildTimedOut,
    environment_without_secrets,
    watch,
)
from imagehub.jobs.lease import (
    JobCancelled,
    JobFailed,
    JobInterrupted,
    Lease,
    WorkerStopping,
    told_as_failures,
)
from imagehub.jobs.protocol import ExitCode
from imagehub.jobs.run_log import RunLog
from scraping.models import ImageOutcome, PageOutcome, ScrapedImage, ScrapedPage, ScrapeJob
from scraping.politeness.gatekeeper import Gatekeeper
from scraping.services.folders import folder_of, log_of
from scraping.services.intake import raise_if_album_is_gone
from scraping.services.plans import assignment_of, manners, plan_of
from scraping.services.recording import Recorder
from scraping.services.reviewing import REJECTED
from scraping.services.shared_store import SharedStore
from scraping.services.told import ToldFigures, told

logger = logging.getLogger(__name__)

MOST_KNOWN = 10_000
"""Pictures of an album that a crawl is told of, so that it does not fetch them again. The newest go first."""

HOPELESS = {ExitCode.BAD_REQUEST: "bad_request", ExitCode.STORAGE: "storage_error"}
"""How a crawler ends that would end so again."""

SENTENCES: dict[str, str] = {
    PageOutcome.BLOCKED: "leads to where nothing is fetched from",
    PageOutcome.ROBOTS: "is forbidden by robots.txt",
    PageOutcome.OPTED_OUT: "opts out of AI",
    PageOutcome.FAILED: "could not be fetched",
    PageOutcome.FILTERED: "is not of a kind that is wanted",
    PageOutcome.SKIPPED: "was not reached",
}


def crawl(job: ScrapeJob, lease: Lease) -> None:
    """Carry out a claimed crawl: from the start, or on from where an earlier attempt was lost.

    Raises:
        JobFailed: nothing was found, or it cannot be done, for a reason that would not go away.
        JobInterrupted: the crawler was lost; the next attempt goes on from its journal.
        JobCancelled, WorkerStopping, LeaseLost: see ``Lease``.
    """
    with told_as_failures():
        _Crawl(job, lease).carry_out()


class _Crawl:
    """One attempt."""

    def __init__(self, job: ScrapeJob, lease: Lease) -> None:
        self._job = job
        self._lease = lease
        self._config = get_config().scraping
        self._folder = folder_of(job)
        self._recorder = Recorder(job, lease)
        self._finished: ToldFigures | None = None
        self._error: dict[str, Any] = {}

    def carry_out(self) -> None:
        self._lease.raise_if_stopping()
        self._prepare()
        try:
            self._collect()
        except JobInterrupted:  # the next attempt goes on with what is there
            self._count()
            raise
        except (JobFailed, JobCancelled):
            self._count()
            self._tidy()
            raise
        self._tidy()

    def _collect(self) -> None:
        self._recorder.start()
        try:
            self._follow()
        finally:
            # Whatever was fetched is taken in, however the crawler has ended; what went wrong with that is the news.
            self._recorder.finish()
        if self._lease.cancel_requested:
            raise JobCancelled
        if self._recorder.is_incomplete or (self._finished is None and stopping.stop_requested()):
            raise WorkerStopping
        if self._finished is None:
            raise JobInterrupted("crawler_died", "The crawler ended without saying what came of it.")
        self._complete(self._finished)

    def _count(self) -> None:
        """Let the figures of a crawl that ends too early add up: what nobody has told the end of was not found."""
        self._lease.note(images_found=ScrapedImage.objects.filter(job=self._job).count())

    def _tidy(self) -> None:
        """Delete what was fetched, unless somebody has still to look at some of it: the library has what is wanted."""
        if not ScrapedImage.objects.filter(job=self._job, state=ImageOutcome.REVIEW).exists():
            with suppress(OSError):
                shutil.rmtree(self._folder.pictures)

    def _prepare(self) -> None:
        """Tell the crawler what to do."""
        raise_if_album_is_gone(self._job)
        plan = plan_of(self._job)
        known = ScrapedImage.objects.none()
        if self._job.album_id:
            kept = (ImageOutcome.SAVED, ImageOutcome.DUPLICATE)
            known = ScrapedImage.objects.filter(
                job__album=self._job.album_id, state__in=kept, image__deleted_at=None, image__isnull=False
            ).exclude(job=self._job)
        rows = known.order_by("-id").values_list("url", "sha256")[:MOST_KNOWN]
        urls, hashes = {url for url, _ in rows}, {sha256 for _, sha256 in rows if sha256}
        assignment_of(plan, known_hashes=sorted(hashes), seen_urls=sorted(urls)).write(self._folder)

    def _follow(self) -> None:
        """Run the crawler until it ends."""
        log = RunLog(log_of(self._job), limit_bytes=self._config.log_limit_bytes)
        log.begin_job()
        child = Child(
            [sys.executable, "-m", "scraping.crawler", str(self._folder.root)],
            cwd=settings.BASE_DIR,
            log=log,
            env=environment_without_secrets(),
        )
        # Named by its claim: an attempt that was handed back is counted no further, and comes again under its number.
        kin = f"{self._job.pk}:"
        gatekeeper = Gatekeeper(SharedStore(), manners(), name=f"{kin}{self._job.token}", kin=kin)
        child.start()

        def hear(event: dict[str, Any]) -> None:
            answer = gatekeeper.answer(event)
            if answer is not None:
                with suppress(ChildDied):  # the next turn finds out how
                    child.send(answer)
            self._hear(event)

        def should_stop() -> bool:
            self._recorder.raise_error()
            return self._lease.should_stop()

        config = self._config
        limits = ChildLimits(config.wall_seconds, config.idle_seconds, config.grace_seconds)
        try:
            watch(
                child,
                limits=limits,
                on_event=hear,
                should_stop=should_stop,
                ask_to_stop=self._ask_to_stop,
            )
        except ChildTimedOut as error:
            if error.which == "wall":
                raise JobFailed("time_limit", "The crawl took longer than is configured.") from error
            raise JobInterrupted("crawler_silent", str(error)) from error
        except ChildDied as error:
            raise self._died(error) from error
        finally:
            gatekeeper.close()

    def _ask_to_stop(self, child: Child) -> None:
        """Cancelled, it brings all that it has found to an end; else it goes on later, from where it was."""
        if self._lease.cancel_requested:
            child.send({"type": "cancel"})
        else:
            child.signal_group(signal.SIGTERM)

    def _died(self, error: ChildDied) -> JobFailed:
        code = HOPELESS.get(error.exit.code)  # type: ignore[call-overload]
        detail = str(self._error.get("detail") or error.exit.description)
        if code:
            return JobFailed(str(self._error.get("code") or code), detail)
        return JobInterrupted(str(self._error.get("code") or "crawler_died"), detail)

    def _hear(self, event: dict[str, Any]) -> None:
        if event.get("event") == "error":
            self._error = event
            return
        try:
            said = told(event)
        except ValidationError:  # its text would quote a stranger
            logger.warning("Ignored an event of a crawler that makes no sense")
            return
        if isinstance(said, ToldFigures):
            if event["event"] == "finished":
                self._finished = said
            else:
                self._report(said)
        elif said is not None:
            self._recorder.take(said)

    def _report(self, figures: ToldFigures) -> None:
        counts, pages = Counter(figures.counts), Counter(figures.pages)
        found, known = figures.found, figures.pages_known
        ended = counts.total() + pages.total()
        self._lease.report(
            step=counts["saved"],
            total_steps=self._job.total_steps,
            message=f"{counts['saved']} of {found} pictures kept, {pages['visited']} of {known} pages read",
            done=min(0.99, ended / max(found + known, 1)),
        )
        self._lease.note(images_found=found, pages=pages["visited"], is_truncated=figures.truncated)

    def _complete(self, finished: ToldFigures) -> None:
        """End the job as what was found says."""
        items = ScrapedImage.objects.filter(job=self._job)
        figures: dict[str, Any] = {
            "images_found": items.count(),
            "pages": finished.pages.get("visited", 0),
            "end_reason": finished.reason,
            "is_truncated": finished.truncated,
        }
        if figures["images_found"] != finished.found:
            noted = figures["images_found"]
            logger.error("Crawl %s has found %s pictures and noted %s", self._job.pk, finished.found, noted)
        is_there = (ImageOutcome.SAVED, ImageOutcome.DUPLICATE, ImageOutcome.REVIEW)
        if not items.filter(Q(state__in=is_there) | Q(reason=REJECTED)).exists():
            self._lease.note(**figures)
            raise self._nothing_found()
        with transaction.atomic():
            self._lease.complete(step=self._job.images_saved, **figures)

    def _nothing_found(self) -> JobFailed:
        states: Counter[str] = Counter()
        named: Counter[str] = Counter()
        for rows in (ScrapedPage.objects.filter(job=self._job), ScrapedImage.objects.filter(job=self._job)):
            for state, is_named, count in rows.values_list("state", Q(page_url="")).annotate(Count("pk")):
                states[state] += count
                named[state] += count if is_named else 0
        states.pop(PageOutcome.VISITED, None)
        if {PageOutcome.BLOCKED} in (set(states), set(+named)):
            return JobFailed(
                "blocked_address", "What was to be fetched leads to where nothing is fetched from."
            )
        parts = [f"{count} {SENTENCES[state]}" for state, count in states.most_common() if state in SENTENCES]
        detail = f" Of the addresses {', '.join(parts)}." if parts else ""
        return JobFailed("no_images_found", f"No picture was found.{detail}")
