import base64
import itertools
import zlib
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from scraping.politeness import hosts, opt_outs, waiting
from scraping.politeness.gatekeeper import Gatekeeper
from scraping.politeness.hosts import HostState, Manners, Outcome
from scraping.politeness.robots import CACHE_SECONDS, MAX_BYTES, UNREACHABLE_CACHE_SECONDS, Robots
from scraping.politeness.store import MemoryStore, PolicyFile

NOW = 1_800_000_000.0


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


class World:
    """A gatekeeper, and a crawler that talks to it."""

    def __init__(self, store=None, name="one", **manners):
        self.clock = Clock()
        self.store = store or MemoryStore()
        self.gatekeeper = Gatekeeper(self.store, Manners(**manners), name=name, clock=self.clock)
        self.number = 0

    def ask(self, url="http://a.test/1.png", purpose="image", **options):
        self.number += 1
        event = {"event": "slot", "id": self.number, "url": url, "purpose": purpose} | options
        return self.gatekeeper.answer(event)

    def publish(self, origin="http://a.test", robots=b"", status=200, tdm=b"[]", tdm_status=404):
        for path, code, body in (
            ("/robots.txt", status, robots),
            ("/.well-known/tdmrep.json", tdm_status, tdm),
        ):
            event = {"event": "policy", "origin": origin, "path": path, "status": code}
            self.gatekeeper.answer(event | {"body": base64.b64encode(zlib.compress(body)).decode()})

    def end(self, number, status=200, host="a.test", **fields):
        self.gatekeeper.answer({"event": "outcome", "id": number, "host": host, "status": status} | fields)


def robots(text, status=200):
    return Robots.read(PolicyFile(status, text.encode() if isinstance(text, str) else text, NOW))


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("7", 7.0),
            (" 120 ", 120.0),
            ("0", 0.0),
            (format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True), 30.0),
            (format_datetime(datetime.fromtimestamp(NOW - 30, UTC), usegmt=True), 0.0),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
            ("²", None),
            ("9" * 5000, waiting.LONGEST_RETRY_SECONDS),
            ("Fri, 31 Dec 9999 23:59:59 GMT", waiting.LONGEST_RETRY_SECONDS),
        ],
    )
    def test_reads_seconds_and_dates(self, value, seconds):
        assert waiting.retry_after_seconds(value, NOW) == seconds

    def test_backoff_grows_up_to_its_bound_and_differs_from_time_to_time(self):
        waits = [[waiting.full_jitter(failures) for _ in range(200)] for failures in (1, 3, 40)]

        for found, bound in zip(waits, (2.0, 8.0, waiting.LONGEST_BACKOFF_SECONDS), strict=True):
            assert min(found) >= 0
            assert bound / 2 < max(found) <= bound


class TestRobots:
    @pytest.mark.parametrize(
        ("status", "is_allowed"),
        [
            (200, False),
            (204, True),
            (301, True),
            (400, True),
            (401, True),
            (403, True),
            (404, True),
            (410, True),
            (429, False),
            (500, False),
            (503, False),
            (None, False),
        ],
    )
    def test_what_is_missing_allows_and_what_is_unreachable_forbids(self, status, is_allowed):
        text = "" if status == 204 else "User-agent: *\nDisallow: /"
        assert robots(text, status).allows("http://a.test/x") is is_allowed

    @pytest.mark.parametrize(
        ("text", "path", "is_allowed"),
        [
            ("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b/c", True),
            ("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/c", False),
            ("User-agent: *\nAllow: /\nDisallow: /*.gif$", "/x.gif", False),
            ("User-agent: *\nAllow: /\nDisallow: /*.gif$", "/x.gif?1", True),
            ("User-agent: *\nDisallow:", "/x", True),
            ("User-agent: *\nDisallow: /\n\nUser-agent: imagehub\nDisallow: /private", "/x", True),
            ("User-agent: ImageHub\nDisallow: /\n\nUser-agent: *\nAllow: /", "/x", False),
            ("User-agent: otherbot\nDisallow: /", "/x", True),
            ("<!doctype html><title>not found</title>", "/x", True),
            ("\ufeffUser-agent: *\nDisallow: /x", "/x", False),
        ],
    )
    def test_the_longest_rule_of_our_own_group_decides(self, text, path, is_allowed):
        assert robots(text).allows(f"http://a.test{path}") is is_allowed

    def test_ignores_what_lies_behind_500_kib(self):
        head = "User-agent: *\nDisallow: /a\n"
        text = head + "#" * (MAX_BYTES - len(head) - 1) + "\nDisallow: /b\n"
        assert not robots(text).allows("http://a.test/a")
        assert robots(text).allows("http://a.test/b")

    @pytest.mark.parametrize(
        ("text", "delay"),
        [
            ("User-agent: *\nCrawl-delay: 3", 3.0),
            ("User-agent: *\nRequest-rate: 1/20", 20.0),
            ("User-agent: *\nCrawl-delay: inf", 0.0),
            ("User-agent: *\nCrawl-delay: -2", 0.0),
            ("User-agent: *\nCrawl-delay: soon", 0.0),
            ("User-agent: imagehub\nCrawl-delay: 4\n\nUser-agent: *\nCrawl-delay: 9", 4.0),
        ],
    )
    def test_reads_the_delay(self, text, delay):
        assert robots(text).crawl_delay == delay


class TestOptOuts:
    @pytest.mark.parametrize(
        ("header", "found"),
        [
            (("X-Robots-Tag", "noai"), "x_robots_tag"),
            (("x-robots-tag", "noindex, NoImageAI"), "x_robots_tag"),
            (("X-Robots-Tag", "imagehub: noai"), "x_robots_tag"),
            (("X-Robots-Tag", "otherbot: noai"), ""),
            (("X-Robots-Tag", "noindex"), ""),
            (("X-Robots-Tag", "noairplanes"), ""),
            (("TDM-Reservation", "1"), "tdm_header"),
            (("TDM-Reservation", "0"), ""),
        ],
    )
    def test_reads_headers(self, header, found):
        assert opt_outs.opted_out_by_headers([header]) == found

    def test_reads_meta_elements(self):
        assert opt_outs.opted_out_by_meta([("ROBOTS", "index, noimageai")]) == "meta_robots"
        assert opt_outs.opted_out_by_meta([("tdm-reservation", "1")]) == "tdm_meta"
        assert opt_outs.opted_out_by_meta([("description", "noai"), ("robots", "noindex")]) == ""

    @pytest.mark.parametrize(
        ("pattern", "path", "fits"),
        [
            ("/", "/anything", True),
            ("/a", "/b", False),
            ("/a*/c", "/abc/c/d", True),
            ("/*.jpg$", "/x.jpg", True),
            ("/*.jpg$", "/x.jpg?1", False),
            ("/x$", "/xy", False),
            ("*" * 5000 + "b$", "/" + "a" * 5000, False),
        ],
    )
    def test_patterns(self, pattern, path, fits):
        assert opt_outs.matches(pattern, path) is fits

    def test_a_reservation_of_a_site_holds_for_pictures_that_it_names(self):
        world = World()
        world.publish(
            tdm=b'[{"location": "/", "tdm-reservation": 1}, {"location": "/open/", "tdm-reservation": 0}]',
            tdm_status=200,
        )

        assert world.ask("http://a.test/1.png") == {
            "type": "slot",
            "id": 1,
            "verdict": "opted_out",
            "reason": "tdm_file",
        }
        assert world.ask("http://a.test/open/1.png")["verdict"] == "go"
        world.clock.now += 1
        assert world.ask("http://a.test/1.png", obey_opt_outs=False)["opt_out"] == "tdm_file"


class TestGatekeeper:
    def test_asks_for_the_files_of_a_site_first_and_only_once(self):
        world = World()

        assert world.ask()["path"] == "/robots.txt"
        assert world.ask()["verdict"] == "wait"
        world.publish()
        assert world.ask()["verdict"] == "go"

    def test_lets_another_crawler_fetch_them_when_the_first_is_gone(self):
        store = MemoryStore()
        one, other = World(store, "one"), World(store, "other")
        assert one.ask()["verdict"] == "fetch"
        assert other.ask()["verdict"] == "wait"
        one.gatekeeper.close()
        assert other.ask()["path"] == "/robots.txt"

    def test_asks_again_after_a_day_and_sooner_when_nobody_answered(self):
        world = World()
        world.publish()
        world.clock.now += CACHE_SECONDS - 1
        assert world.ask()["verdict"] == "go"
        world.clock.now += 1
        assert world.ask()["path"] == "/robots.txt"
        world.publish(status=500)
        assert world.ask() == {"type": "slot", "id": 3, "verdict": "robots", "reason": "unreachable"}
        world.clock.now += UNREACHABLE_CACHE_SECONDS
        assert world.ask()["path"] == "/robots.txt"

    def test_an_origin_speaks_for_itself_only(self):
        world = World()
        world.publish(robots=b"User-agent: *\nDisallow: /")

        assert world.ask()["verdict"] == "robots"
        assert world.ask("https://a.test/1.png")["verdict"] == "fetch"
        assert world.ask("http://a.test:8080/1.png")["verdict"] == "fetch"

    def test_lets_one_go_in_each_interval_whoever_asks(self):
        store = MemoryStore()
        one, other = World(store, "one"), World(store, "other")
        other.gatekeeper._clock = one.clock
        one.publish()

        assert one.ask()["verdict"] == "go"
        for world in (one, other):
            answer = world.ask()
            assert (answer["verdict"], answer["reason"]) == ("wait", "rate")
            assert 1.0 <= answer["seconds"] <= 1.001
        one.clock.now += 1.0
        assert other.ask()["verdict"] == "go"
        assert one.ask()["verdict"] == "wait"
        assert one.ask("http://b.test/1.png", purpose="policy")["verdict"] == "go"

    def test_a_store_that_is_busy_brings_no_two_requests_closer_together(self):
        class BusyStore(MemoryStore):
            def change(self, host, step):
                result = super().change(host, step)
                world.clock.now += delays.pop() if delays else 0.0
                return result

        delays, world = [0.8], World(BusyStore())
        world.publish()
        begun = []
        for _ in range(2):
            while (answer := world.ask())["verdict"] != "go":
                world.clock.now += answer["seconds"]
            begun.append(world.clock.now)

        assert begun[1] - begun[0] >= 1.0

    def test_keeps_to_two_connections_and_forgets_those_of_the_dead(self):
        world = World()
        world.publish()
        assert world.ask()["verdict"] == "go"
        for _ in range(2):
            world.clock.now += 1
            last = world.ask()
        assert (last["verdict"], last["reason"]) == ("wait", "connections")
        world.end(1)
        assert world.ask()["verdict"] == "go"
        world.clock.now += Manners().holder_seconds
        assert world.ask()["verdict"] == "go"

    def test_gives_back_what_a_crawler_held_that_is_gone_or_did_not_use(self):
        world = World()
        world.publish()
        world.ask()
        world.clock.now += 1
        world.ask()
        world.clock.now += 1
        world.gatekeeper.answer({"event": "outcome", "id": 1, "host": "a.test", "unsent": True})
        assert world.ask()["verdict"] == "go"
        world.gatekeeper.close()
        assert world.store.change("a.test", lambda state: (state.holders, state.failures)) == ({}, 0)

    def test_honours_a_crawl_delay_from_the_first_request_on(self):
        world = World()
        assert world.ask(purpose="policy")["verdict"] == "go"
        world.publish(robots=b"User-agent: *\nCrawl-delay: 3")
        world.clock.now += 2.9
        assert world.ask()["verdict"] == "wait"
        world.clock.now += 0.1
        assert world.ask()["verdict"] == "go"

    def test_tells_how_long_a_host_is_left_alone_between_two_requests(self):
        world = World(interval=2.0)
        assert world.ask(purpose="policy")["interval"] == 2.0
        world.publish(robots=b"User-agent: *\nCrawl-delay: 3")
        world.clock.now += 3
        assert world.ask()["interval"] == 3.0
        world.end(2, 429, retry_after="0")
        world.clock.now += 4
        assert world.ask()["interval"] == 4.0

    @pytest.mark.parametrize("status", [200, 301, 429, 503])
    def test_is_never_early_for_retry_after_and_lets_others_go_on(self, status):
        world = World()
        world.publish()
        world.publish("http://b.test")
        world.ask()
        world.end(1, status, retry_after="7")
        world.clock.now += 6.999
        assert world.ask()["verdict"] == "wait"
        assert world.ask("http://b.test/1.png")["verdict"] == "go"
        world.clock.now += 0.001
        assert world.ask()["verdict"] == "go"

    def test_robots_may_be_overridden_and_the_verdict_is_told(self):
        world = World()
        world.publish(robots=b"User-agent: *\nDisallow: /")
        assert world.ask(obey_robots=False)["robots"] == "disallowed"

    @pytest.mark.parametrize("status", [-5, 0, 99, 600, 40_000, 10**30, True, "200"])
    def test_a_status_that_http_does_not_know_is_no_answer(self, status):
        world = World()
        world.publish(status=status)
        assert world.ask()["reason"] == "unreachable"
        world.end(1, status)
        assert world.store.change("a.test", lambda state: (state.errors, state.good)) == (1, 0)

    @pytest.mark.parametrize(
        "event", [{"event": "slot", "id": 1}, {"event": "slot"}, {"event": "policy"}, {}]
    )
    def test_ignores_what_makes_no_sense(self, event):
        assert World().gatekeeper.answer(event) is None


class TestHosts:
    def make(self, **manners):
        return HostState(), Manners(**manners)

    def try_once(self, state, manners, now, status=None):
        if hosts.take(state, manners, "x", now=now, crawl_delay=0.0) is None:
            hosts.note(state, manners, "x", Outcome(status), now=now)
            return True
        return False

    def test_429_slows_down_and_fast_failures_never_speed_up(self):
        state, manners = self.make(breaker_failures=1000)
        times = [step / 100 for step in range(60_000) if self.try_once(state, manners, step / 100, 429)]

        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert min(gaps) >= 2.0
        assert gaps[8:]
        assert min(gaps[8:]) >= manners.longest_interval

    def test_good_answers_speed_up_again_but_never_beyond_the_usual(self):
        state, manners = self.make()
        hosts.note(state, manners, "x", Outcome(429, retry_after=0.0), now=NOW)
        assert state.interval == 2.0
        for _ in range(3 * manners.recovery):
            hosts.note(state, manners, "x", Outcome(200), now=NOW)
        assert state.interval == 0.0
        assert hosts.take(state, manners, "x", now=NOW, crawl_delay=0.0) is None
        assert hosts.take(state, manners, "y", now=NOW + 0.99, crawl_delay=0.0).reason == "rate"

    def test_opens_the_circuit_tries_with_one_and_waits_twice_as_long_when_that_fails(self):
        state, manners = self.make()
        for _ in range(manners.breaker_failures):
            hosts.note(state, manners, "x", Outcome(None), now=NOW)
        wait = hosts.take(state, manners, "x", now=NOW, crawl_delay=0.0)
        assert (wait.reason, wait.seconds >= manners.breaker_seconds) == ("broken", True)

        later = state.closed_until
        assert hosts.take(state, manners, "x", now=later, crawl_delay=0.0) is None
        assert hosts.take(state, manners, "y", now=later + 5, crawl_delay=0.0).reason == "connections"
        hosts.note(state, manners, "x", Outcome(500), now=later + 5)
        assert state.closed_until >= later + 5 + 2 * manners.breaker_seconds

        hosts.note(state, manners, "x", Outcome(200), now=state.closed_until)
        assert (state.failures, state.breaks) == (0, 0)

    def test_a_missing_page_is_no_failure(self):
        state, manners = self.make()
        for _ in range(10):
            hosts.note(state, manners, "x", Outcome(404), now=NOW)
        assert (state.failures, state.closed_until) == (0, 0.0)

    def test_waits_no_longer_than_an_interval_for_a_clock_that_is_ahead(self):
        state, manners = self.make()
        state.last_at = NOW + 3600
        assert hosts.take(state, manners, "x", now=NOW, crawl_delay=0.0).seconds <= manners.interval
