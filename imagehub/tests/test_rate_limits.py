"""Who is counted, how, and for how long."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import RequestFactory
from django_ratelimit import core

from imagehub.checks import processes_share_a_cache
from imagehub.config_file import parse
from imagehub.rate_limits import RateLimited, charge, rate_limit_key, refund

pytestmark = pytest.mark.cache


@pytest.fixture(autouse=True)
def _limits(set_config):
    set_config("rate_limits: {labeling: {limit: 10, window_seconds: 100}}")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands 40 seconds after the beginning of the window of ``user:1``."""
    now = SimpleNamespace(time=lambda: now.value)
    now.value = 1_800_000_000.0
    monkeypatch.setattr(core, "time", now)
    monkeypatch.setattr("imagehub.rate_limits.time", now)
    now.value = core._get_window("user:1", 100) + 40.0
    return now


def refused(cost: int = 1) -> RateLimited:
    with pytest.raises(RateLimited) as refusal:
        charge("labeling", "user:1", cost)
    return refusal.value


class TestCharge:
    def test_charges_the_cost(self):
        usage = charge("labeling", "user:1", 4)

        assert (usage.used, usage.remaining, usage.limit, usage.window_seconds) == (4, 6, 10, 100)
        assert charge("labeling", "user:1", 6).remaining == 0

    def test_a_call_that_is_refused_costs_nothing(self):
        charge("labeling", "user:1", 8)

        for _ in range(5):
            assert refused(3).usage.remaining == 2
        assert charge("labeling", "user:1", 2).remaining == 0

    def test_each_user_and_group_has_a_counter_of_its_own(self):
        charge("labeling", "user:1", 10)

        assert charge("labeling", "user:2", 10).remaining == 0
        assert charge("scrape_start", "user:1").remaining == 9

    def test_a_refund_gives_back_what_was_charged(self):
        charge("labeling", "user:1", 2)
        refund(charge("labeling", "user:1", 8))

        assert charge("labeling", "user:1", cost=0).used == 2

    def test_looking_counts_nothing(self):
        assert [charge("labeling", "user:1", cost=0).used for _ in range(3)] == [0, 0, 0]

    def test_of_many_at_once_exactly_as_many_pass_as_may(self):
        def is_accepted(_: int) -> bool:
            try:
                charge("labeling", "user:1")
            except RateLimited:
                return False
            return True

        with ThreadPoolExecutor(50) as pool:
            assert sum(pool.map(is_accepted, range(50))) == 10

    def test_the_counter_is_the_one_that_django_ratelimit_reads(self):
        charge("labeling", "user:1", 3)
        request = RequestFactory().get("/")

        def usage(*, increment: bool):
            return core.get_usage(
                request, group="labeling", key=lambda *_: "user:1", rate="10/100s", increment=increment
            )

        assert usage(increment=False)["count"] == 3
        assert usage(increment=True)["count"] == 4
        found = charge("labeling", "user:1", cost=0)
        assert (found.used, found.limit) == (4, usage(increment=False)["limit"])
        assert abs(found.reset - usage(increment=False)["time_left"]) <= 1

    def test_a_cache_that_forgets_between_two_lines_locks_nobody_out(self, monkeypatch):
        from imagehub import rate_limits

        class Forgetful:
            def add(self, *_):
                return True

            def incr(self, *_):
                raise ValueError

        monkeypatch.setattr(rate_limits, "_cache", Forgetful)

        assert charge("labeling", "user:1").used == 1


class TestWindow:
    def test_the_wait_falls_as_time_passes_and_then_all_is_well(self, clock):
        charge("labeling", "user:1", 10)

        waits = []
        for _ in range(6):
            waits.append(refused().retry_after)
            clock.value += 10
        assert waits == [60, 50, 40, 30, 20, 10]
        assert refused().retry_after == 1  # the very last second
        clock.value += 1
        assert charge("labeling", "user:1", 10).remaining == 0

    def test_a_refund_after_the_window_does_no_harm(self, clock):
        usage = charge("labeling", "user:1", 3)
        clock.value += 100
        charge("labeling", "user:1", 2)
        refund(usage)

        assert charge("labeling", "user:1", cost=0).used == 2


class TestConfiguration:
    @pytest.mark.parametrize("limit", [0, -1])
    def test_zero_or_less_is_no_limit(self, set_config, limit):
        set_config(f"rate_limits: {{labeling: {{limit: {limit}, window_seconds: 100}}}}")

        assert [charge("labeling", "user:1", 100), charge("labeling", "user:1", cost=0)] == [None, None]
        refund(None)

    def test_a_change_holds_at_once(self, set_config):
        charge("labeling", "user:1", 10)
        refused()
        set_config("rate_limits: {labeling: {limit: 2, window_seconds: 100}}")

        charge("labeling", "user:1", 2)
        assert refused().limit == 2

    def test_a_job_that_could_never_be_accepted_is_an_error(self):
        with pytest.raises(ValueError, match="refused for ever"):
            parse("rate_limits: {generate: {limit: 7, window_seconds: 60}}")
        assert (
            parse("rate_limits: {generate: {limit: 8, window_seconds: 60}}").rate_limits.generate.limit == 8
        )
        assert parse("rate_limits: {generate: {limit: 0, window_seconds: 60}}")

    @pytest.mark.parametrize("window", ["0", "86401", "1.5", "'60'"])
    def test_windows_are_whole_seconds_of_at_most_a_day(self, window):
        with pytest.raises(ValueError, match=r"rate_limits\.upload\.window_seconds"):
            parse(f"rate_limits: {{upload: {{limit: 1, window_seconds: {window}}}}}")


class TestKey:
    @staticmethod
    def key(user=None, **meta) -> str:
        request = RequestFactory().get("/", **meta)
        request.user = user or AnonymousUser()
        return rate_limit_key(request)

    def test_is_the_user_wherever_they_come_from(self):
        assert self.key(User(pk=7), REMOTE_ADDR="192.0.2.1") == "user:7"

    def test_is_the_address_of_a_visitor(self):
        assert self.key(REMOTE_ADDR="192.0.2.1") == "ip:192.0.2.1"
        assert self.key(REMOTE_ADDR="") == "ip:unknown"

    def test_is_the_address_where_no_middleware_looked_for_a_user(self):
        assert rate_limit_key(RequestFactory().get("/", REMOTE_ADDR="192.0.2.1")) == "ip:192.0.2.1"

    def test_is_one_for_a_whole_network_of_ipv6(self):
        keys = {self.key(REMOTE_ADDR=f"2001:db8:1:2:{n:x}::{n:x}") for n in range(1, 50)}

        assert keys == {"ip:2001:db8:1:2::/64"}
        assert self.key(REMOTE_ADDR="2001:db8:1:3::1") == "ip:2001:db8:1:3::/64"
        assert self.key(REMOTE_ADDR="fe80::1%eth0") == "ip:fe80::/64"

    @pytest.mark.parametrize("proxies", [0, 1])
    def test_does_not_believe_what_the_client_wrote(self, settings, proxies):
        settings.TRUSTED_PROXIES = proxies
        keys = {
            self.key(
                REMOTE_ADDR="192.0.2.1",
                HTTP_X_FORWARDED_FOR=f"198.51.100.{n}" + (", 203.0.113.9" if proxies else ""),
                HTTP_FORWARDED=f"for=198.51.100.{n}",
                HTTP_X_REAL_IP=f"198.51.100.{n}",
                HTTP_CF_CONNECTING_IP=f"198.51.100.{n}",
                HTTP_TRUE_CLIENT_IP=f"198.51.100.{n}",
            )
            for n in range(10)
        }

        assert keys == {"ip:203.0.113.9" if proxies else "ip:192.0.2.1"}


def test_several_web_processes_need_a_shared_cache(settings):
    settings.WEB_PROCESSES, settings.REDIS_URL = 2, ""
    assert [error.id for error in processes_share_a_cache()] == ["imagehub.E001"]

    settings.REDIS_URL = "redis://127.0.0.1:6379/0"
    assert processes_share_a_cache() == []
    settings.WEB_PROCESSES, settings.REDIS_URL = 1, ""
    assert processes_share_a_cache() == []
