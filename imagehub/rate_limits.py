"""How often somebody may do something: one counter for each user or address, group and window of time.

Rates, windows and the names of the counters are django-ratelimit's. Its own counting always adds one and charges refused
calls as well, so here one atomic increment adds the cost, and takes it back from a call that does not fit.
"""

import ipaddress
import time
from contextlib import suppress
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest
from django_ratelimit import ALL
from django_ratelimit.core import EXPIRATION_FUDGE, _get_window, _make_cache_key

from imagehub import counters
from imagehub.client_address import client_address
from imagehub.config import get_config
from imagehub.config_schema import RateLimitsConfig
from imagehub.errors import TooMany

IPV6_NETWORK_BITS = 64
"""What one customer is given at least; counted by single addresses, a limit would be no limit."""


@dataclass(frozen=True)
class Usage:
    """Where a counter stood when it was last looked at."""

    counter: str
    limit: int
    window_seconds: int
    used: int
    cost: int
    reset: int
    """Seconds until the window ends, at least 1."""

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def headers(self) -> dict[str, str]:
        """What an answer says about it."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset),
        }


class RateLimited(TooMany):
    code = "rate_limited"
    title = "Too many requests"

    def __init__(self, usage: Usage) -> None:
        super().__init__(
            f"There may be {usage.limit} in {usage.window_seconds} seconds, and {usage.remaining} are left."
            f" Try again in {usage.reset} seconds.",
            limit=usage.limit,
            retry_after=usage.reset,
        )
        self.usage = usage


def rate_limit_key(request: HttpRequest) -> str:
    """Return whom a request counts for: the user, or else the address of the client (IPv6: its network)."""
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return f"user:{user.pk}"
    return address_key(request)


def address_key(request: HttpRequest) -> str:
    """Return the address of the client as a key (IPv6: its network), whoever is signed in."""
    return f"ip:{_network(client_address(request))}"


def charge(group: str, key: str, cost: int = 1) -> Usage | None:
    """Count a call; return where the counter stands now, or None where the configuration sets no limit.

    Args:
        group: a field of ``rate_limits`` in the configuration, which is read anew each time. A changed limit counts
            from zero.
        key: who is counted, see :func:`rate_limit_key`.
        cost: what the call takes from the limit.

    Raises:
        RateLimited: it does not fit. Nothing was charged.
    """
    usage = _look(group, key, cost)
    if usage is None:
        return None
    used = _add(usage)
    if used <= usage.limit:
        return _standing(usage, used)
    refund(usage)
    counters.add({_rejections(group): 1})
    raise RateLimited(_standing(usage, used - cost))


def rejections() -> dict[str, int]:
    """Return how many calls of each group were refused since the shared cache began to count, by the name of the group.

    While the shared cache is away, these are the refusals of this process since then: they are added to the others later.
    """
    groups = list(RateLimitsConfig.model_fields)
    found = counters.totals(_rejections(group) for group in groups)
    return {group: found[_rejections(group)] for group in groups}


def refund(usage: Usage | None) -> None:
    """Give back what :func:`charge` took. Does nothing once the window has ended."""
    if usage is not None:
        with suppress(ValueError):  # the counter is gone
            _cache().decr(usage.counter, usage.cost)


def _rejections(group: str) -> str:
    return f"rejections:{group}"


def _look(group: str, key: str, cost: int) -> Usage | None:
    """Name the counter of this moment."""
    rule = getattr(get_config().rate_limits, group)
    if rule.limit <= 0:
        return None
    window = _get_window(key, rule.window_seconds)
    return Usage(
        counter=_make_cache_key(group, window, (rule.limit, rule.window_seconds), key, ALL),
        limit=rule.limit,
        window_seconds=rule.window_seconds,
        used=0,
        cost=cost,
        reset=max(1, window - int(time.time())),
    )


def _add(usage: Usage) -> int:
    """Add the cost to the counter, and return its sum. Callers at once get different sums."""
    cache = _cache()
    for _ in range(3):
        with suppress(ValueError):  # it is new, or it vanished because the cache failed over
            return cache.incr(usage.counter, usage.cost)
        cache.add(usage.counter, 0, usage.window_seconds + EXPIRATION_FUDGE)
    return usage.cost  # a cache that forgets everything must not lock everybody out


def _standing(usage: Usage, used: int) -> Usage:
    return Usage(**(vars(usage) | {"used": used}))


def _cache():
    return caches[settings.RATELIMIT_USE_CACHE]


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    host_bits = parsed.max_prefixlen - IPV6_NETWORK_BITS
    return f"{ipaddress.IPv6Address(int(parsed) >> host_bits << host_bits)}/{IPV6_NETWORK_BITS}"
