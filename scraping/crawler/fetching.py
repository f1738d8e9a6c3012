"""Fetching one address: politely, guarded, with every hop of a redirect treated like a request of its own."""

import asyncio
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from scrapy import Request
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
    StopDownload,
)
from scrapy.http import Response

from imagehub.egress.policy import BlockedAddress, Policy
from imagehub.egress.urls import vet_redirect, vet_url
from scraping.crawler.assignment import Assignment
from scraping.crawler.gate import Gate
from scraping.politeness import opt_outs, robots
from scraping.politeness.gatekeeper import host_of, origin_of
from scraping.politeness.hosts import SLOW_DOWN

logger = logging.getLogger(__name__)

REDIRECTS = frozenset({301, 302, 303, 307, 308})
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 522, 524})
POLICY_ATTEMPTS = 3

ACCEPT = {
    "page": b"text/html,application/xhtml+xml,application/xml;q=0.9,image/*;q=0.8,*/*;q=0.5",
    "image": b"image/webp,image/png,image/jpeg,image/*;q=0.8,*/*;q=0.5",
    "policy": b"*/*",
}

_FAULTS = {
    DownloadTimeoutError: "timeout",
    CannotResolveHostError: "unresolved",
    DownloadConnectionRefusedError: "unreachable",
    DownloadFailedError: "connection_lost",
    ResponseDataLossError: "connection_lost",
}


@dataclass
class Trail:
    """What is known of a fetch so far: its provenance."""

    url: str
    """The address asked last."""
    redirects: list[str] = field(default_factory=list)
    """The addresses asked before."""
    status: int | None = None
    robots: str = ""
    opt_out: str = ""
    received: int = 0
    """Bytes of bodies, decompressed."""


@dataclass
class Fetched:
    """An answer with a body."""

    trail: Trail
    headers: list[tuple[str, str]]
    body: bytes
    content_type: str
    encoding: str


class FetchEnded(Exception):
    """There is no answer to work with. ``state`` and ``reason`` are those of the item."""

    def __init__(self, state: str, reason: str, trail: Trail, *, may_retry: bool = False) -> None:
        super().__init__(f"{state}: {reason}")
        self.state = state
        self.reason = reason
        self.trail = trail
        self.may_retry = may_retry


class Budget:
    """The bytes that all answers of a crawl may have together."""

    def __init__(self, total: int) -> None:
        self._left = total

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    def spend(self, size: int) -> None:
        self._left -= size


class Fetcher:
    """Fetches for one crawl."""

    def __init__(
        self,
        download: Callable[[Request], Awaitable[Response]],
        gate: Gate,
        assignment: Assignment,
        budget: Budget,
    ) -> None:
        """Fetch with ``download``, which makes one request and follows nothing."""
        self._download = download
        self._gate = gate
        self._assignment = assignment
        self._policy: Policy = assignment.egress.policy
        self._budget = budget
        self._room = asyncio.Semaphore(assignment.concurrency)
        self._refusals: Counter[str] = Counter()
        """How often each host has asked for a pause."""
        self._begun: dict[str, float] = {}
        """When the last request to each host began, by the monotonic clock."""
        self._pace: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Of each host, held by the request that is to begin next."""
        self._blocked: set[str] = set()
        """Origins whose names lead to where nothing may be fetched."""

    async def fetch(self, url: str, purpose: str, max_bytes: int) -> Fetched:
        """Return the answer to an address; status 2xx.

        Args:
            url: of a page or a picture.
            purpose: ``page`` or ``image``.
            max_bytes: of the body, as it comes and decompressed.

        Raises:
            FetchEnded: there is none.
            ParentSilent: nobody says whether it may be fetched.
        """
        trail = Trail(url)
        for _ in range(self._assignment.redirects + 1):
            response = await self._one(trail, purpose, max_bytes)
            location = response.headers.get("Location")
            if response.status not in REDIRECTS or location is None:
                return self._read(response, trail)
            self._follow(trail, location)
        raise FetchEnded("failed", "too_many_redirects", trail)

    async def _one(self, trail: Trail, purpose: str, max_bytes: int) -> Response:
        """Wait until the next address of a trail may be asked, and ask it."""
        try:
            trail.url = vet_url(trail.url, self._policy)
        except BlockedAddress:
            raise FetchEnded("blocked", "blocked_address", trail) from None
        while True:
            if origin_of(trail.url) in self._blocked:
                raise FetchEnded("blocked", "blocked_address", trail)
            # There is room before the question is asked: whoever is let go begins at once.
            async with self._room:
                host = host_of(trail.url)
                refusals = self._refusals[host]
                answer = await self._gate.ask(trail.url, purpose)
                if answer["verdict"] == "go":
                    if not await self._keeps_pace(host, answer, trail, refusals):
                        continue
                    trail.robots = answer["robots"]
                    trail.opt_out = trail.opt_out or answer["opt_out"]
                    return await self._send(trail, answer["id"], purpose, max_bytes)
            match answer["verdict"]:
                case "wait":
                    await self._wait(answer, trail)
                case "fetch":
                    await self._fetch_policy(trail, answer["path"])
                case state:
                    if state == "robots":
                        trail.robots = answer["reason"]
                    else:
                        trail.opt_out = answer["reason"]
                    raise FetchEnded(state, answer["reason"], trail)

    async def _keeps_pace(self, host: str, answer: dict[str, Any], trail: Trail, refusals: int) -> bool:
        """Wait where the request before was let go in time and began late: its answer was under way for longer than this one.

        Whoever was let go first begins first. Returns True if the request begins now, or False if it was given back: the host
        has asked for a pause once more since it was asked for, of which the parent had not heard.
        """
        try:
            async with self._pace[host]:
                while (pause := self._begun.get(host, -math.inf) + answer["interval"] - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
                if self._refusals[host] == refusals:
                    self._begun[host] = time.monotonic()
                    return True
        except asyncio.CancelledError:
            self._gate.unsent(answer["id"], trail.url)
            raise
        self._gate.unsent(answer["id"], trail.url)
        return False

    async def _wait(self, answer: dict[str, Any], trail: Trail) -> None:
        if answer["seconds"] > self._assignment.patience_seconds:
            raise FetchEnded("failed", "host_unavailable", trail)
        await asyncio.sleep(answer["seconds"])

    async def _send(self, trail: Trail, number: int, purpose: str, max_bytes: int) -> Response:
        """Make one request, and tell the parent how it went."""
        meta: dict[str, Any] = {
            "download_maxsize": max_bytes,
            "download_timeout": self._assignment.timeout_seconds,
        }
        request = Request(trail.url, headers={b"Accept": ACCEPT[purpose]}, meta=meta, dont_filter=True)
        begun = time.monotonic()
        try:
            response = await self._download(request)
        except asyncio.CancelledError:
            self._gate.unsent(number, trail.url)
            raise
        except BlockedAddress:
            self._gate.unsent(number, trail.url)
            raise FetchEnded("blocked", "blocked_address", trail) from None
        except StopDownload:
            self._gate.unsent(number, trail.url)
            raise FetchEnded("skipped", "byte_limit", trail) from None
        except (DownloadCancelledError, IgnoreRequest):  # longer than it may be, as it came or decompressed
            self._gate.outcome(number, trail.url, status=200)
            raise FetchEnded("filtered", "too_many_bytes", trail) from None
        except tuple(_FAULTS) as error:
            self._gate.outcome(number, trail.url, status=None)
            raise FetchEnded("failed", _FAULTS[type(error)], trail, may_retry=True) from None
        except Exception:
            logger.exception("A request failed in a way nobody foresaw")
            self._gate.outcome(number, trail.url, status=None)
            raise FetchEnded("failed", "protocol", trail) from None
        if response.status in SLOW_DOWN or response.headers.get("Retry-After"):
            self._refusals[host_of(trail.url)] += 1
        trail.status = response.status
        trail.received += len(response.body)
        self._budget.spend(max(0, len(response.body) - meta.get("received", 0)))
        self._gate.outcome(
            number,
            trail.url,
            status=response.status,
            retry_after=_text(response.headers.get("Retry-After")),
            latency=meta.get("download_latency", time.monotonic() - begun),
        )
        return response

    def _follow(self, trail: Trail, location: bytes) -> None:
        try:
            target = vet_redirect(_text(location), source=trail.url, policy=self._policy)
        except BlockedAddress:
            raise FetchEnded("blocked", "blocked_redirect", trail) from None
        trail.redirects.append(trail.url)
        trail.url = target

    def _read(self, response: Response, trail: Trail) -> Fetched:
        status = response.status
        if not 200 <= status < 300:
            raise FetchEnded("failed", f"http_{status}", trail, may_retry=status in TRY_AGAIN)
        headers = [
            (_text(name), _text(value)) for name, values in response.headers.items() for value in values or ()
        ]
        trail.opt_out = opt_outs.opted_out_by_headers(headers) or trail.opt_out
        return Fetched(
            trail,
            headers,
            response.body,
            _text(response.headers.get("Content-Type")).lower(),
            getattr(response, "encoding", None) or "utf-8",
        )

    async def _fetch_policy(self, wanted: Trail, path: str) -> None:
        """Fetch a file in which a site says what it allows, and report it; whatever goes wrong is reported as no answer.

        Nothing is reported if the crawl ends meanwhile: that says nothing about the site.
        """
        origin, status, body = origin_of(wanted.url), None, b""
        for attempt in range(POLICY_ATTEMPTS):
            trail = Trail(origin + path)
            try:
                status, body = await self._policy_file(trail)
                if status not in TRY_AGAIN:
                    break
            except FetchEnded as ended:
                if ended.state == "skipped":
                    raise FetchEnded(ended.state, ended.reason, wanted) from None
                if ended.state == "blocked" and not trail.redirects:
                    self._blocked.add(origin)
                if not ended.may_retry or attempt == POLICY_ATTEMPTS - 1:
                    break
        self._gate.policy(origin, path, status=status, body=body)

    async def _policy_file(self, trail: Trail) -> tuple[int, bytes]:
        """Return status and body of a file, after at most five redirects; what redirects once more counts as missing."""
        for _ in range(robots.MAX_REDIRECTS + 1):
            response = await self._one(trail, "policy", 4 * robots.MAX_BYTES)
            location = response.headers.get("Location")
            if response.status not in REDIRECTS or location is None:
                break
            self._follow(trail, location)
        return response.status, response.body[: robots.MAX_BYTES]


def _text(value: bytes | None) -> str:
    return (value or b"").decode("latin-1")
