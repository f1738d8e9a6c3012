"""Requests go on while Redis is down, frozen or forgets, and it is asked again now and then."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from imagehub import failover_cache
from imagehub.failover_cache import Breaker, FailoverCache
from imagehub.rate_limits import RateLimited, charge

needs_redis = pytest.mark.skipif(not shutil.which("redis-server"), reason="needs the program redis-server")


@pytest.fixture(autouse=True)
def _no_breakers(monkeypatch):
    monkeypatch.setattr(failover_cache, "_breakers", {})


@pytest.fixture
def frozen():
    """A server that accepts connections and never answers; yields its address and how many it accepted."""
    accepted: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                accepted.append(server.accept()[0])
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0", accepted
        server.shutdown(socket.SHUT_RDWR)
    for connection in accepted:
        connection.close()


@pytest.fixture
def gone() -> str:
    """The address of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def make(server: str, cooldown: float = 60.0) -> FailoverCache:
    return FailoverCache(server, {"KEY_PREFIX": "t", "OPTIONS": {"COOLDOWN_SECONDS": cooldown}})


class TestWithoutTheServer:
    def test_every_operation_works_in_the_process(self, gone):
        cache = make(gone)

        assert cache.add("a", 1) is True
        assert cache.add("a", 2) is False
        assert (cache.incr("a", 4), cache.decr("a")) == (5, 4)
        assert (cache.get("a"), cache.has_key("a"), cache.touch("a", 10), cache.get("b", "-")) == (
            4, True, True, "-",
        )  # fmt: skip
        cache.set("b", {"x": 1})
        assert cache.get_many(["a", "b", "c"]) == {"a": 4, "b": {"x": 1}}
        cache.set_many({"c": 3})
        cache.delete_many(["a"])
        assert (cache.get("a"), cache.get("c"), cache.delete("c")) == (None, 3, True)
        with pytest.raises(ValueError, match="not found"):
            cache.incr("c")
        cache.clear()
        assert cache.get("b") is None

    def test_says_so_once(self, gone, caplog):
        cache = make(gone, cooldown=0.0)  # asks each time

        assert not failover_cache.is_degraded()
        for _ in range(5):
            cache.set("a", 1)

        assert failover_cache.is_degraded()
        assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
            "The shared cache does not answer"
        ]

    def test_a_frozen_server_costs_one_short_wait_in_a_cooldown(self, frozen):
        server, accepted = frozen
        cache = make(server)

        started = time.monotonic()
        cache.set("a", 1)
        first = time.monotonic() - started
        started = time.monotonic()
        for _ in range(1000):
            cache.get("a")
        others = time.monotonic() - started

        assert 0.15 < first < 2.0
        assert others < 1.0
        assert len(accepted) == 1

    def test_threads_share_what_is_known_of_the_server(self, frozen):
        server, accepted = frozen
        make(server).set("a", 1)

        with ThreadPoolExecutor(20) as pool:  # a cache for each, as Django makes them
            assert list(pool.map(lambda _: make(server).get("a"), range(20))) == [1] * 20
        assert len(accepted) == 1

    def test_limits_hold_in_the_process(self, gone, set_config, monkeypatch):
        set_config("rate_limits: {labeling: {limit: 10, window_seconds: 3600}}")
        monkeypatch.setattr("imagehub.rate_limits._cache", lambda: make(gone))

        def is_accepted(_: int) -> bool:
            try:
                charge("labeling", "user:1")
            except RateLimited:
                return False
            return True

        with ThreadPoolExecutor(20) as pool:
            assert sum(pool.map(is_accepted, range(40))) == 10


class TestBreaker:
    def test_lets_one_caller_probe_in_each_cooldown(self, monkeypatch):
        now = [100.0]
        monkeypatch.setattr(failover_cache.time, "monotonic", lambda: now[0])
        breaker = Breaker(3.0)
        assert breaker.may_ask()
        breaker.failed(OSError())

        assert not breaker.may_ask()
        now[0] += 2.9
        assert not breaker.may_ask()
        now[0] += 0.1
        assert [breaker.may_ask() for _ in range(5)] == [True, False, False, False, False]
        now[0] += 3.0
        assert breaker.may_ask()
        breaker.answered()
        assert all(breaker.may_ask() for _ in range(5))


@needs_redis
class TestWithTheServer:
    @pytest.fixture
    def redis(self, redis_server):
        return redis_server()

    def test_keeps_what_is_written_where_others_see_it(self, redis):
        one, other = make(redis.url), make(redis.url)

        one.set("a", {"x": 1})
        one.add("n", 0, 60)
        assert other.get("a") == {"x": 1}
        assert (other.incr("n", 5), one.get("n")) == (5, 5)
        with pytest.raises(ValueError, match="not found"):
            one.incr("nothing")
        assert not failover_cache.is_degraded()

    def test_connections_outlive_the_caches_that_django_makes_for_each_request(self, redis):
        def connections() -> int:
            return Redis.from_url(redis.url).info("stats")["total_connections_received"]

        make(redis.url).set("a", 1)
        before = connections()
        for _ in range(20):
            make(redis.url).get("a")

        assert connections() == before + 1  # the one that asks

    def test_goes_back_to_it_when_it_thaws(self, redis, caplog):
        cache = make(redis.url, cooldown=0.3)
        cache.set("a", "shared")

        os.kill(redis.pid, signal.SIGSTOP)
        cache.set("a", "local")
        assert cache.get("a") == "local"
        os.kill(redis.pid, signal.SIGCONT)
        deadline = time.monotonic() + 10
        while failover_cache.is_degraded() and time.monotonic() < deadline:
            time.sleep(0.05)
            found = cache.get("a")

        assert found in ("shared", "local")  # the write that timed out may have arrived after all
        assert not failover_cache.is_degraded()
        assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]

    def test_a_killed_server_is_not_missed(self, redis):
        cache = make(redis.url)
        cache.add("n", 0, 60)
        cache.incr("n", 3)

        redis.kill()
        redis.wait()

        cache.add("n", 0, 60)
        assert cache.incr("n", 2) == 2
        assert failover_cache.is_degraded()

    def test_a_refused_command_fails_over_too(self, redis):
        make(redis.url).set("a", 1)
        subprocess.run(
            ["redis-cli", "-p", str(redis.port), "config", "set", "maxmemory", "1"],
            check=True,
            capture_output=True,
        )

        cache = make(redis.url)
        cache.set("b", 1)
        assert cache.get("b") == 1
