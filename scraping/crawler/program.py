"""From an assignment to an exit status: what concerns the process of a crawl, and Scrapy in it."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from scrapy import Request, Spider, signals
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.exceptions import StopDownload
from scrapy.settings import Settings

from imagehub.egress.scrapy_guard import guard_settings
from imagehub.jobs.protocol import Channel, ExitCode
from scraping.crawler.assignment import Assignment, CrawlFolder
from scraping.crawler.crawl import Crawl
from scraping.crawler.fetching import Budget, Fetcher
from scraping.crawler.gate import Gate, ParentSilent, local_gate
from scraping.politeness.gatekeeper import Gatekeeper
from scraping.politeness.store import MemoryStore

logger = logging.getLogger(__name__)

SMALLEST_DELAY = 0.005
"""Seconds between two requests to a host, as Scrapy sees it. Never 0: its slots then let 24 to 31 requests through a limit of 8
(measured with 2.19.0). The real pace is the gatekeeper's."""

Emit = Callable[..., None]


class PictureSpider(Spider):
    """What Scrapy runs. It makes no requests for Scrapy's own queue: the crawl asks the engine for each."""

    name = "pictures"

    def __init__(self, work: Callable[["PictureSpider"], Awaitable[None]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._work = work

    async def start(self) -> AsyncIterator[Any]:
        await self._work(self)
        return
        yield


def scrapy_settings(assignment: Assignment) -> Settings:
    """Return how Scrapy is to behave: fetch, decompress within limits, and decide nothing else by itself."""
    return Settings(
        {
            "USER_AGENT": assignment.user_agent,
            "CONCURRENT_REQUESTS": assignment.concurrency,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 2,
            "DOWNLOAD_DELAY": SMALLEST_DELAY,
            "DOWNLOAD_DELAY_JITTER": 0.0,
            "DOWNLOAD_WARNSIZE": 0,
            "COOKIES_ENABLED": False,
            "REFERER_ENABLED": False,
            "REDIRECT_ENABLED": False,  # each hop is asked for like a first request
            "RETRY_ENABLED": False,
            "ROBOTSTXT_OBEY": False,  # the gatekeeper does, by RFC 9309
            "HTTPERROR_ENABLED": False,
            "LOG_ENABLED": False,
            "LOG_INSTALL_ROOT_HANDLER": False,
            "STATS_DUMP": False,
            "MEMUSAGE_ENABLED": False,
            **guard_settings(assignment.egress.policy),
        }
    )


class Program:
    """One run of the crawler."""

    def __init__(
        self, folder: CrawlFolder, assignment: Assignment, channel: Channel, *, has_parent: bool
    ) -> None:
        """Prepare a run. Without a parent that answers, a gatekeeper in this process does."""
        self._folder = folder
        self._assignment = assignment
        self._channel = channel
        self._has_parent = has_parent
        self._status = ExitCode.BUG

    def run(self) -> ExitCode:
        """Crawl, and tell how it ended."""
        process = AsyncCrawlerProcess(scrapy_settings(self._assignment))
        for name in (
            "scrapy",
            "twisted",
            "asyncio",
            "protego",
        ):  # Scrapy lets all of them speak of everything
            logging.getLogger(name).setLevel(logging.WARNING)
        process.crawl(PictureSpider, work=self._work)
        process.start(install_signal_handlers=False)
        return self._status

    async def _work(self, spider: PictureSpider) -> None:
        from twisted.internet import reactor

        try:
            self._status = await self._crawl(spider)
        except BrokenPipeError:
            logger.warning("The guard is gone")
            self._status = ExitCode.STOPPED
        except Exception as error:  # noqa: BLE001 - whatever it is, the guard must be told
            self._status = self._report(error)
        # Not stop: Scrapy would wait for downloads that nobody wants any more.
        reactor.crash()  # type: ignore[misc]

    async def _crawl(self, spider: PictureSpider) -> ExitCode:
        loop = asyncio.get_running_loop()
        budget = Budget(self._assignment.caps.total_bytes)
        gate = self._gate()

        def count(data: bytes, request: Request) -> None:
            request.meta["received"] = request.meta.get("received", 0) + len(data)
            budget.spend(len(data))
            if budget.is_spent:
                raise StopDownload

        spider.crawler.signals.connect(count, signals.bytes_received)
        fetcher = Fetcher(spider.crawler.engine.download_async, gate, self._assignment, budget)
        crawl = Crawl(self._folder, self._assignment, fetcher, budget, self._channel.emit)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, crawl.stop)
        if self._has_parent:
            listener = threading.Thread(
                target=self._listen, args=(loop, gate, crawl), name="requests", daemon=True
            )
            listener.start()
        reason = await crawl.run()
        frontier = crawl.frontier
        if reason == "stopped":
            self._channel.emit("stopped", counts=dict(frontier.counts))
            return ExitCode.STOPPED
        self._channel.emit(
            "finished",
            reason=reason,
            counts=dict(frontier.counts),
            pages=dict(frontier.page_counts),
            found=frontier.found,
            truncated=frontier.is_truncated,
        )
        return ExitCode.FINISHED

    def _gate(self) -> Gate:
        options = {
            "obey_robots": self._assignment.obey_robots,
            "obey_opt_outs": self._assignment.obey_opt_outs,
        }
        if self._has_parent:
            return Gate(lambda event, fields: self._channel.emit(event, **fields), **options)
        return local_gate(Gatekeeper(MemoryStore(), name=str(os.getpid())), **options)

    def _listen(self, loop: asyncio.AbstractEventLoop, gate: Gate, crawl: Crawl) -> None:
        """Take what the guard sends; runs in a thread of its own until the pipe is closed."""
        with suppress(RuntimeError):  # the loop has ended
            for message in self._channel.requests():
                match message.get("type"):
                    case "slot":
                        loop.call_soon_threadsafe(gate.answered, message)
                    case "stop":
                        loop.call_soon_threadsafe(crawl.stop)
                    case "cancel":
                        loop.call_soon_threadsafe(crawl.cancel)
                    case _:
                        logger.warning("Ignored a request of a kind that means nothing here")
            loop.call_soon_threadsafe(crawl.stop)  # nobody answers any more

    def _report(self, error: Exception) -> ExitCode:
        """Tell the guard of a failure, the run log of all there is to know of it, and return the exit status."""
        logger.error("The crawl failed", exc_info=error)
        if isinstance(error, ParentSilent):
            code, detail, status = "crawler_error", "The worker did not answer the crawler.", ExitCode.BUG
        elif isinstance(error, OSError):
            code, detail, status = "storage_error", "The crawler could not write its files.", ExitCode.STORAGE
        else:
            detail = f"The crawler met an unexpected error ({type(error).__name__})."
            code, status = "crawler_error", ExitCode.BUG
        with suppress(BrokenPipeError):
            self._channel.emit("error", code=code, detail=detail)
        return status
