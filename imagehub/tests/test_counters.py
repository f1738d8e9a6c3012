"""Counters of all processes: what they cost, and what becomes of them when the shared cache goes and comes."""

import importlib.util
import signal
from collections.abc import Callable
from types import ModuleType

import pytest
from django.core.cache import cache

from imagehub import counters, failover_cache, rate_limits, request_counts
from imagehub.failover_cache import FailoverCache

pytestmark = pytest.mark.cache


@pytest.fixture(autouse=True)
def _from_zero():
    """Other tests count as well, and Redis forgets nothing."""
    names = [
        *(f"rejections:{group}" for group in rate_limits.RateLimitsConfig.model_fields),
        "things",
        "http:5xx",
    ]
    cache.delete_many([f"counter:{name}" for name in names])


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """What the cache was asked to count."""
    found = []
    original = counters._add

    def add(key: str, amount: int) -> None:
        found.append(key)
        original(key, amount)

    monkeypatch.setattr(counters, "_add", add)
    return found


def _process() -> ModuleType:
    """Return the counters as another process has them."""
    spec = importlib.util.find_spec("imagehub.counters")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _interrupted(process: ModuleType) -> Callable[[], None]:
    """Return a flush after which another thread of the process counts at once."""
    flush = process.flush

    def flush_and_count() -> None:
        flush()
        process._own.update({"things": 1})

    return flush_and_count


def refuse(group: str = "labeling") -> None:
    with pytest.raises(rate_limits.RateLimited):
        rate_limits.charge(group, "user:1")


class TestCounting:
    def test_counts_what_was_added(self):
        for _ in range(3):
            counters.add({"things": 2})

        assert counters.totals(["things", "nothing"]) == {"things": 6, "nothing": 0}

    def test_asks_the_cache_once_in_five_seconds_however_often_it_counts(self, asked, monkeypatch):
        for _ in range(1000):
            counters.add({"things": 1})
        assert asked == []

        monkeypatch.setattr(counters, "FLUSH_SECONDS", 0.0)
        counters.add({"things": 1})

        assert asked == ["counter:things"]
        assert counters.totals(["things"]) == {"things": 1001}

    def test_a_process_that_begins_goes_on_where_others_are(self):
        counters.add({"things": 5})
        counters.flush()
        counters.forget()  # as a new process does

        counters.add({"things": 2})

        assert counters.totals(["things"]) == {"things": 7}

    def test_a_sum_never_falls_whichever_process_is_asked(self, monkeypatch):
        processes = [_process(), _process()]
        for process in processes:
            monkeypatch.setattr(process, "flush", _interrupted(process))
        sums = []
        for turn in range(12):
            processes[turn % 3 % 2].add({"things": 1})
            sums.append(processes[turn % 2].totals(["things"])["things"])

        assert sums == sorted(sums)
        assert sums[-1] > 0

    @pytest.mark.once
    def test_what_was_counted_while_redis_was_away_is_added_when_it_is_back(self, redis_server, monkeypatch):
        server = redis_server()
        shared = FailoverCache(server.url, {"KEY_PREFIX": "default", "OPTIONS": {"COOLDOWN_SECONDS": 0.0}})
        monkeypatch.setattr(counters, "cache", shared)
        counters.add({"things": 1, "others": 1})
        assert counters.totals(["things"]) == {"things": 1}

        server.send_signal(signal.SIGSTOP)  # SIGSTOP: it is there and does not answer
        counters.add({"things": 2, "others": 2})
        assert counters.totals(["things"]) == {"things": 2}  # its own alone
        assert failover_cache.is_degraded()

        server.send_signal(signal.SIGCONT)
        server.wait_until_it_answers()
        counters.totals(["things"])  # the first call finds that it answers again
        assert counters.totals(["things", "others"]) == {"things": 3, "others": 3}


class TestRejections:
    @pytest.fixture(autouse=True)
    def _limits(self, set_config):
        set_config("rate_limits: {labeling: {limit: 1, window_seconds: 100}}")

    def test_each_refusal_is_counted_in_its_group(self):
        rate_limits.charge("labeling", "user:1")
        refuse()
        refuse()

        found = rate_limits.rejections()

        assert found["labeling"] == 2
        assert sum(found.values()) == 2

    def test_a_refusal_costs_at_most_one_increment_for_being_counted(self, asked, monkeypatch):
        rate_limits.charge("labeling", "user:1")
        monkeypatch.setattr(counters, "FLUSH_SECONDS", 0.0)

        refuse()

        assert asked == ["counter:rejections:labeling"]


class TestRequests:
    def test_each_answer_is_counted_by_its_class_and_its_duration(self, client, db):
        before = request_counts.read()

        client.get("/api/health/live")
        client.get("/api/nothing")

        after = request_counts.read()
        assert after.by_class["2xx"] - before.by_class["2xx"] == 1
        assert after.by_class["4xx"] - before.by_class["4xx"] == 1
        assert after.buckets[-1][1] - before.buckets[-1][1] == 2
        assert after.seconds > before.seconds

    @pytest.mark.parametrize(("seconds", "le"), [(0.005, "0.005"), (0.0051, "0.01"), (99.0, "+Inf")])
    def test_a_bucket_counts_what_took_so_long_at_most(self, seconds, le):
        before = dict(request_counts.read().buckets)

        request_counts.count(200, seconds)

        grown = {bound for bound, number in request_counts.read().buckets if number > before[bound]}
        bounds = [f"{bound:g}" for bound in request_counts.BUCKETS] + ["+Inf"]
        assert grown == set(bounds[bounds.index(le) :])
