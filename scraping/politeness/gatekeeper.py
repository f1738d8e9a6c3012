"""The worker's side of the talk between a crawler and whoever knows what all crawlers do.

Of the crawler come events, and each that asks something gets one answer:

- ``slot`` (``id``, ``url``, ``purpose``, ``obey_robots``, ``obey_opt_outs``): may this be fetched now? The answer, also called
  ``slot`` and with the same ``id``, has a ``verdict``: ``go``; ``wait`` with ``seconds`` and ``reason``, after which it is to be asked
  again; ``fetch`` with a ``path``, a file of the site that is to be fetched and reported first; ``robots`` or ``opted_out`` with a
  ``reason``: never. ``go`` counts as a request that has begun; its ``interval`` are the seconds that have to lie between two
  requests to the host, which the crawler sees to as well: an answer may reach it late, and the next one in time.
- ``outcome`` (``id``, ``host``, ``status``, ``retry_after``, ``latency``): how a request ended that was let go; ``unsent`` if
  nothing went out.
- ``policy`` (``origin``, ``path``, ``status``, ``body``): a file of a site, zlib and Base64; without a status it could not be fetched.

A status that HTTP does not know (RFC 9110, 15) counts as none.
"""

import base64
import logging
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from scraping.politeness import hosts, opt_outs, robots
from scraping.politeness.opt_outs import TdmRules
from scraping.politeness.recent import Recent
from scraping.politeness.robots import Robots
from scraping.politeness.store import PolicyFile, Store
from scraping.politeness.waiting import retry_after_seconds

logger = logging.getLogger(__name__)

Message = dict[str, Any]

Rules = TypeVar("Rules")
_Understood = Recent[str, tuple[float, Rules]]
"""By origin, when a file was fetched, and the rules in it."""

FETCH_SECONDS = 120.0
"""A file that one crawler went to fetch is given to another one after so long."""

LATE_SECONDS = 0.02
"""What a store that takes longer has written down as the beginning of a request is put right by the next question."""

FETCH_WAIT_SECONDS = 0.3
MOST_UNDERSTOOD = 512
"""Files kept as rules, so that they are not parsed for each address."""

MOST_UNDERSTOOD_BYTES = 8 * 1024 * 1024
"""Of those files. As rules they take up to some forty times as much memory."""


class Gatekeeper:
    """Decides for one crawler. All that crawlers must agree on lies in the store."""

    def __init__(
        self,
        store: Store,
        manners: hosts.Manners | None = None,
        *,
        name: str = "",
        kin: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Decide by what a store remembers.

        Args:
            store: what is shared.
            manners: how hosts are treated that say nothing themselves.
            name: of the crawler, different from those of all others that share the store.
            kin: how the names of earlier attempts at the same crawl begin. They are gone: what they still hold is free.
            clock: returns a POSIX time.
        """
        self._store = store
        self._manners = manners or hosts.Manners()
        self._name = name
        self._kin = kin
        self._clock = clock
        self._held: dict[str, str] = {}
        """Hosts, by the requests to them that are on their way."""
        self._late: dict[str, float] = {}
        """When requests began that the store has written down as earlier, because it was busy; by host."""
        self._fetching: set[tuple[str, str]] = set()
        """Files that this crawler is to fetch."""
        self._robots: _Understood[Robots] = Recent(most=MOST_UNDERSTOOD, most_bytes=MOST_UNDERSTOOD_BYTES)
        self._tdm: _Understood[TdmRules] = Recent(most=MOST_UNDERSTOOD, most_bytes=MOST_UNDERSTOOD_BYTES)

    def answer(self, event: Mapping[str, Any]) -> Message | None:
        """Take an event and return what to send to the crawler, or None. Other events and senseless ones are ignored."""
        try:
            match event.get("event"):
                case "slot":
                    return {"type": "slot", "id": event["id"]} | self._decide(event)
                case "outcome":
                    self._note(event)
                case "policy":
                    self._keep(event)
        except (KeyError, TypeError, ValueError, AttributeError):
            logger.warning("Ignored an event of a crawler that makes no sense")
        return None

    def close(self) -> None:
        """Give back what the crawler still holds. To be called when it is gone, however it went."""
        for holder, host in self._held.items():
            self._give_back(host, holder)
        for origin, path in self._fetching:
            self._store.release_fetch(origin, path)
        self._held.clear()
        self._fetching.clear()

    def _decide(self, event: Mapping[str, Any]) -> Message:
        url, now = str(event["url"]), self._clock()
        crawl_delay, verdict = 0.0, "unasked"
        if event.get("purpose") != "policy":
            needed = self._needed(url, now)
            if needed is not None:
                return needed
            rules = self._rules(url)
            crawl_delay = rules.crawl_delay
            verdict = _verdict(rules, url)
            if verdict != "allowed" and event.get("obey_robots") is not False:
                return {"verdict": "robots", "reason": verdict}
        is_reserved = event.get("purpose") != "policy" and self._reservations(url).reserves(url)
        if is_reserved and event.get("purpose") == "image" and event.get("obey_opt_outs") is not False:
            return {"verdict": "opted_out", "reason": "tdm_file"}
        host, holder = host_of(url), self._holder(event)
        interval = 0.0

        def take(state: hosts.HostState) -> hosts.Wait | None:
            nonlocal interval
            interval = hosts.interval_of(state, self._manners, crawl_delay)
            self._bury_kin(state)
            state.last_at = max(state.last_at, self._late.get(host, 0.0))
            return hosts.take(state, self._manners, holder, now=now, crawl_delay=crawl_delay)

        wait = self._store.change(host, take)
        self._late.pop(host, None)
        if wait is not None:
            return {"verdict": "wait", "seconds": round(wait.seconds + 0.0005, 3), "reason": wait.reason}
        self._held[holder] = host
        if self._clock() - now > LATE_SECONDS:
            self._late[host] = self._clock()
        opt_out = "tdm_file" if is_reserved else ""
        return {"verdict": "go", "robots": verdict, "opt_out": opt_out, "interval": interval}

    def _bury_kin(self, state: hosts.HostState) -> None:
        """Free what attempts that were killed still hold."""
        for holder in list(state.holders):
            if self._kin and holder.startswith(self._kin) and not holder.startswith(f"{self._name}:"):
                del state.holders[holder]

    def _needed(self, url: str, now: float) -> Message | None:
        """Return an answer as long as a file is missing that says whether this address may be fetched."""
        origin = origin_of(url)
        for path in (robots.PATH, opt_outs.TDM_PATH):
            file = self._store.file(origin, path)
            if file is None or robots.is_stale(file, now):
                if self._store.claim_fetch(origin, path, now=now, until=now + FETCH_SECONDS):
                    self._fetching.add((origin, path))
                    return {"verdict": "fetch", "path": path}
                return {"verdict": "wait", "seconds": FETCH_WAIT_SECONDS, "reason": "policy"}
            if path == robots.PATH and robots.is_unreachable(file):
                return None  # all is forbidden: whatever else the site has to say is not asked for
        return None

    def _rules(self, url: str) -> Robots:
        file = self._store.file(origin_of(url), robots.PATH)
        if file is None:  # the store has forgotten it just now: nothing is known, nothing is allowed
            return Robots(None, is_unreachable=True)
        return _understood(self._robots, origin_of(url), file, Robots.read)

    def _reservations(self, url: str) -> TdmRules:
        file = self._store.file(origin_of(url), opt_outs.TDM_PATH)
        if file is None:
            return TdmRules(())
        return _understood(self._tdm, origin_of(url), file, TdmRules.read)

    def _note(self, event: Mapping[str, Any]) -> None:
        now, holder = self._clock(), self._holder(event)
        if event.get("unsent") is True:
            self._give_back(str(event["host"]), holder)
            self._held.pop(holder, None)
            return
        retry_after = event.get("retry_after")
        outcome = hosts.Outcome(
            _status(event),
            retry_after_seconds(retry_after, now) if isinstance(retry_after, str) else None,
            float(event.get("latency") or 0.0),
        )
        self._store.change(
            str(event["host"]),
            lambda state: hosts.note(state, self._manners, holder, outcome, now=now),
        )
        self._held.pop(holder, None)

    def _give_back(self, host: str, holder: str) -> None:
        self._store.change(host, lambda state: state.holders.pop(holder, None))

    def _keep(self, event: Mapping[str, Any]) -> None:
        body = b""
        with suppress(ValueError, TypeError, zlib.error):
            unpacker = zlib.decompressobj()
            body = unpacker.decompress(base64.b64decode(event.get("body") or ""), robots.MAX_BYTES)
        file = PolicyFile(_status(event), body, self._clock())
        origin, path = str(event["origin"]), str(event["path"])
        self._store.keep_file(origin, path, file)
        self._fetching.discard(
            (origin, path)
        )  # not before: what cannot be written down is somebody else's to fetch

    def _holder(self, event: Mapping[str, Any]) -> str:
        return f"{self._name}:{event['id']}"


def host_of(url: str) -> str:
    """Return the host that a request to an address burdens. Its ports and schemes count as one."""
    return (urlsplit(url).hostname or "").rstrip(".")


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address: a robots.txt speaks for one of those."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def _status(event: Mapping[str, Any]) -> int | None:
    """Return the status that an event tells of, or None: a server may write any number there, which is no answer then."""
    status = event.get("status")
    return status if isinstance(status, int) and 100 <= status < 600 else None


def _verdict(rules: Robots, url: str) -> str:
    if rules.is_unreachable:
        return "unreachable"
    return "allowed" if rules.allows(url) else "disallowed"


def _understood(
    known: _Understood[Rules], origin: str, file: PolicyFile, read: Callable[[PolicyFile], Rules]
) -> Rules:
    """Return the rules of a file, which are read once."""
    last = known.get(origin)
    if last is not None and last[0] == file.fetched_at:
        return last[1]
    rules = read(file)
    known.put(origin, (file.fetched_at, rules), len(file.body))
    return rules
