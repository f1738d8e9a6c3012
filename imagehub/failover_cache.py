"""A cache that no request ever fails for: Redis, and a cache in the process while Redis is down, slow or frozen."""

import logging
import threading
import time
from functools import cache
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from django.utils.functional import cached_property
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

COOLDOWN_SECONDS = 3.0
"""How long Redis is left alone after it failed. Then one call tries it again, and the others do not wait for that."""

ANSWER_SECONDS = 0.2
"""How long Redis may take to accept a connection, and to answer."""

MAX_LOCAL_ENTRIES = 10_000


class Breaker:
    """Knows whether a server is worth asking. One for each server in a process, shared by its threads."""

    def __init__(self, cooldown_seconds: float) -> None:
        self._cooldown_seconds = cooldown_seconds
        self._retry_at: float | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the server failed when it was last asked."""
        return self._retry_at is not None

    def may_ask(self) -> bool:
        """Tell whether to ask the server now. While it fails, one caller is told so in each cooldown."""
        if self._retry_at is None:
            return True
        with self._lock:
            now = time.monotonic()
            if self._retry_at is None or now < self._retry_at:
                return self._retry_at is None
            self._retry_at = now + self._cooldown_seconds
            return True

    def failed(self, error: Exception) -> None:
        with self._lock:
            was_open, self._retry_at = self.is_open, time.monotonic() + self._cooldown_seconds
        if not was_open:
            logger.error(
                "The shared cache does not answer (%s); each process keeps its own until it does",
                type(error).__name__,
            )

    def answered(self) -> None:
        if self._retry_at is None:
            return
        with self._lock:
            was_open, self._retry_at = self.is_open, None
        if was_open:
            logger.warning("The shared cache answers again")


_breakers: dict[str, Breaker] = {}


class _LastingRedisCache(RedisCache):
    """Keeps its connections for all threads, as Django makes a new cache for each request that the web server answers."""

    @cached_property
    def _cache(self) -> RedisCacheClient:
        return _client(";".join(self._servers))


@cache
def _client(servers: str) -> RedisCacheClient:
    return RedisCacheClient(
        servers.split(";"), socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
    )


def is_degraded() -> bool:
    """Tell whether a shared cache failed when this process last asked it."""
    return any(breaker.is_open for breaker in _breakers.values())


class FailoverCache(BaseCache):
    """Django's Redis cache, with a cache in the process standing in for it.

    What was written to one is not in the other, so a switch looks like a cache that forgot: readers find nothing, and
    ``incr`` raises ValueError. Entries of the process' cache that outlast a switch end with their own timeouts.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        options = params.get("OPTIONS", {})
        super().__init__(params)
        self._shared = _LastingRedisCache(server, params | {"OPTIONS": {}})
        self._local = LocMemCache(
            f"{server} {self.key_prefix}", params | {"OPTIONS": {"MAX_ENTRIES": MAX_LOCAL_ENTRIES}}
        )
        cooldown = options.get("COOLDOWN_SECONDS", COOLDOWN_SECONDS)
        self._breaker = _breakers.setdefault(server, Breaker(cooldown))

    def add(self, key, value, timeout=DEFAULT_TIMEOUT, version=None):
        return self._ask("add", key, value, timeout, version)

    def get(self, key, default=None, version=None):
        return self._ask("get", key, default, version)

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None):
        return self._ask("set", key, value, timeout, version)

    def touch(self, key, timeout=DEFAULT_TIMEOUT, version=None):
        return self._ask("touch", key, timeout, version)

    def delete(self, key, version=None):
        return self._ask("delete", key, version)

    def has_key(self, key, version=None):
        return self._ask("has_key", key, version)

    def incr(self, key, delta=1, version=None):
        return self._ask("incr", key, delta, version)

    def get_many(self, keys, version=None):
        return self._ask("get_many", keys, version)

    def set_many(self, data, timeout=DEFAULT_TIMEOUT, version=None):
        return self._ask("set_many", data, timeout, version)

    def delete_many(self, keys, version=None):
        return self._ask("delete_many", keys, version)

    def clear(self):
        return self._ask("clear")

    def _ask(self, operation: str, *arguments: Any) -> Any:
        if self._breaker.may_ask():
            try:
                answer = getattr(self._shared, operation)(*arguments)
            except (RedisError, OSError) as error:
                self._breaker.failed(error)
            except ValueError:  # it did answer: there is no such key to count up
                self._breaker.answered()
                raise
            else:
                self._breaker.answered()
                return answer
        return getattr(self._local, operation)(*arguments)
