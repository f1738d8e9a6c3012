"""The state of one host, and how what happens there changes it. Pure: the time is an argument, and nothing is stored here."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from scraping.politeness.waiting import full_jitter

TOO_MANY_REQUESTS = 429
UNAVAILABLE = 503
SLOW_DOWN = frozenset({TOO_MANY_REQUESTS, UNAVAILABLE})

CONNECTION_WAIT_SECONDS = 0.25
"""Whoever finds all connections in use asks again after so long."""


@dataclass(frozen=True)
class Manners:
    """How hosts are treated that say nothing themselves. Seconds throughout."""

    interval: float = 1.0
    """Between the beginnings of two requests to a host."""
    connections: int = 2
    longest_interval: float = 60.0
    """A host that goes on refusing is asked no more rarely than this, but for its ``Retry-After`` and the breaker."""
    recovery: int = 20
    """After so many good answers in a row, a host that was slowed down is asked twice as often, up to the usual rate."""
    breaker_failures: int = 5
    """So many failures in a row open the circuit."""
    breaker_seconds: float = 30.0
    """It stays open for so long at first, and twice as long each time the request that tries again fails."""
    longest_break: float = 900.0
    holder_seconds: float = 180.0
    """A request that nobody reports the end of, because its crawler was killed, holds its connection for so long."""


@dataclass
class HostState:
    """What is remembered of a host. Times are POSIX times."""

    last_at: float = 0.0
    """When the last request began."""
    interval: float = 0.0
    """Seconds between two requests, where it was slowed down; else 0, for the usual."""
    closed_until: float = 0.0
    """Nothing is asked before that: its ``Retry-After``, a backoff, or an open circuit."""
    failures: int = 0
    """In a row."""
    breaks: int = 0
    """How often the circuit opened since the last good answer."""
    good: int = 0
    """Good answers since the last failure or change of rate."""
    holders: dict[str, float] = field(default_factory=dict)
    """Requests on their way, and when each is given up for lost."""
    latency: float = 0.0
    """Seconds to the headers of an answer, as a moving average."""
    requests: int = 0
    errors: int = 0

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        """Return a state as it was stored. What another version has noted beside it is left out."""
        return cls(**{one.name: stored[one.name] for one in fields(cls) if one.name in stored})


@dataclass(frozen=True)
class Outcome:
    """How a request ended. Without a status there was no answer."""

    status: int | None
    retry_after: float | None = None
    """Seconds."""
    latency: float = 0.0

    @property
    def is_failure(self) -> bool:
        """The host is in trouble, or had enough of us. A missing page is neither."""
        return self.status is None or self.status in SLOW_DOWN or self.status >= 500


@dataclass(frozen=True)
class Wait:
    """Not now: ask again after so many seconds."""

    seconds: float
    reason: str
    """``rate``, ``connections``, ``closed`` or ``broken`` (an open circuit)."""


def take(state: HostState, manners: Manners, holder: str, *, now: float, crawl_delay: float) -> Wait | None:
    """Let a request begin at once and return None, or say how long to wait.

    ``crawl_delay`` are the seconds between two requests that the host's robots.txt asks for; 0 if it does not.
    """
    state.holders = {name: until for name, until in state.holders.items() if until > now}
    if now < state.closed_until:
        is_broken = state.failures >= manners.breaker_failures
        return Wait(state.closed_until - now, "broken" if is_broken else "closed")
    interval = interval_of(state, manners, crawl_delay)
    # The clock of another machine may be ahead: never wait longer than one interval for that.
    begun = min(state.last_at, now)
    if now < begun + interval:
        return Wait(begun + interval - now, "rate")
    # A circuit that was open is tried with one request first.
    connections = 1 if state.failures >= manners.breaker_failures else manners.connections
    if len(state.holders) >= connections:
        return Wait(CONNECTION_WAIT_SECONDS, "connections")
    state.holders[holder] = now + manners.holder_seconds
    state.last_at = now
    state.requests += 1
    return None


def interval_of(state: HostState, manners: Manners, crawl_delay: float) -> float:
    """Return the seconds between the beginnings of two requests that are in force now. ``crawl_delay`` is as for ``take``."""
    return max(state.interval, manners.interval, crawl_delay)


def note(state: HostState, manners: Manners, holder: str, outcome: Outcome, *, now: float) -> None:
    """Learn from how a request ended. Only a run of good answers makes anything faster, and never faster than usual."""
    state.holders.pop(holder, None)
    if outcome.retry_after is not None:
        state.closed_until = max(state.closed_until, now + outcome.retry_after)
    if outcome.status is not None:
        state.latency = 0.8 * state.latency + 0.2 * outcome.latency if state.latency else outcome.latency
    if not outcome.is_failure:
        _praise(state, manners)
        return
    state.errors += 1
    state.failures += 1
    state.good = 0
    if outcome.status in SLOW_DOWN:
        state.interval = min(2 * max(state.interval, manners.interval), manners.longest_interval)
    if outcome.retry_after is None:
        state.closed_until = max(state.closed_until, now + full_jitter(state.failures))
    if state.failures >= manners.breaker_failures:
        pause = min(manners.breaker_seconds * 2 ** min(state.breaks, 16), manners.longest_break)
        state.closed_until = max(state.closed_until, now + pause)
        state.breaks += 1


def _praise(state: HostState, manners: Manners) -> None:
    state.failures = state.breaks = 0
    state.good += 1
    if state.interval and state.good >= manners.recovery:
        state.good = 0
        state.interval /= 2
        if state.interval <= manners.interval:
            state.interval = 0.0
