"""What all workers remember of hosts together, in the database."""

from datetime import timedelta

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from imagehub.tests.together import at_once
from scraping.models import HostRecord, SiteFile
from scraping.politeness import hosts
from scraping.politeness.gatekeeper import Gatekeeper
from scraping.politeness.hosts import HostState, Manners
from scraping.politeness.store import MemoryStore, PolicyFile
from scraping.services.shared_store import TRUSTED_SECONDS, SharedStore, forget_hosts

MANNERS = Manners(interval=10.0, connections=2)
HOST = "gallery.example"
URL = f"https://{HOST}/1.png"


def take(store, holder, *, now=1000.0, manners=MANNERS):
    return store.change(HOST, lambda state: hosts.take(state, manners, holder, now=now, crawl_delay=0.0))


def let_everything_be_allowed(store, now=1000.0):
    for path in ("/robots.txt", "/.well-known/tdmrep.json"):
        store.keep_file(f"https://{HOST}", path, PolicyFile(404, b"", now))


@pytest.fixture(params=[MemoryStore, SharedStore])
def store(request, db):
    return request.param()


class TestBothStores:
    def test_remember_what_a_step_did(self, store):
        assert take(store, "a") is None

        assert take(store, "b").reason == "rate"
        store.change(HOST, lambda state: state.holders.pop("a"))
        assert store.change(HOST, lambda state: (state.requests, state.holders)) == (1, {})

    def test_let_one_fetch_a_file_at_a_time(self, store):
        origin, path = f"https://{HOST}", "/robots.txt"
        assert store.claim_fetch(origin, path, now=1000.0, until=1120.0)
        assert not store.claim_fetch(origin, path, now=1119.0, until=1240.0)
        assert store.claim_fetch(origin, path, now=1120.0, until=1240.0)
        store.release_fetch(origin, path)
        assert store.claim_fetch(origin, path, now=1121.0, until=1240.0)
        assert store.file(origin, path) is None

        store.keep_file(origin, path, PolicyFile(200, b"User-agent: *\n", 1122.0))

        assert store.file(origin, path) == PolicyFile(200, b"User-agent: *\n", 1122.0)
        assert store.file(origin, "/other") is None
        assert store.claim_fetch(origin, path, now=1123.0, until=1240.0)
        store.keep_file(origin, path, PolicyFile(None, b"", 1124.0))
        assert store.file(origin, path).status is None


@pytest.mark.django_db
class TestSharedStore:
    def test_files_are_looked_up_again_after_a_minute(self, django_assert_num_queries):
        clock = [0.0]
        one, other = SharedStore(clock=lambda: clock[0]), SharedStore()
        let_everything_be_allowed(one)
        with django_assert_num_queries(0):
            assert one.file(f"https://{HOST}", "/robots.txt").status == 404
        other.keep_file(f"https://{HOST}", "/robots.txt", PolicyFile(200, b"", 1001.0))

        clock[0] = TRUSTED_SECONDS

        assert one.file(f"https://{HOST}", "/robots.txt").status == 200

    def test_no_more_is_kept_beside_the_database_than_the_files_may_weigh(
        self, monkeypatch, django_assert_num_queries
    ):
        monkeypatch.setattr("scraping.services.shared_store.MOST_FILE_BYTES", 1000)
        store = SharedStore()
        for origin in "abc":
            store.keep_file(origin, "/robots.txt", PolicyFile(200, bytes(400), 1000.0))

        for origin, queries in (("b", 0), ("c", 0), ("a", 1), ("c", 0)):
            with django_assert_num_queries(queries):
                assert store.file(origin, "/robots.txt").body == bytes(400)

    def test_a_slot_costs_one_query_unless_others_ask_the_same_host(self, django_assert_num_queries):
        store, other = SharedStore(), SharedStore()
        take(store, "a")

        with django_assert_num_queries(1):
            assert take(store, "b", now=1010.0) is None
        with django_assert_num_queries(1):  # whether that is so is not told from memory
            assert take(store, "c", now=1011.0).reason == "rate"
        store.change(HOST, lambda state: state.holders.clear())
        assert take(other, "d", now=1020.0) is None
        with django_assert_num_queries(2):  # it finds out that it is wrong, and looks
            assert take(store, "e", now=1025.0).reason == "rate"
        with django_assert_num_queries(1):
            assert take(store, "e", now=1030.0) is None
        assert set(HostRecord.objects.get(pk=HOST).state["holders"]) == {"d", "e"}

    def test_what_a_killed_attempt_held_is_free_for_the_next_one_and_for_nobody_else(self):
        store = SharedStore()
        let_everything_be_allowed(store)

        def ask(name, kin, now):
            gatekeeper = Gatekeeper(store, MANNERS, name=name, kin=kin, clock=lambda: now)
            event = {"event": "slot", "id": 1, "url": URL, "purpose": "image"}
            return gatekeeper.answer(event)["verdict"]

        assert ask("job:first", "job:", 1000.0) == "go"
        assert ask("other:x", "other:", 1010.0) == "go"
        assert ask("third:y", "third:", 1020.0) == "wait"
        assert ask("job:second", "job:", 1030.0) == "go"
        assert set(HostRecord.objects.get(pk=HOST).state["holders"]) == {"other:x:1", "job:second:1"}

    @pytest.mark.parametrize("status", [-5, 99, 600, 40_000])
    def test_no_host_ends_a_crawl_by_the_status_of_its_robots_txt(self, status):
        gatekeeper = Gatekeeper(SharedStore(), MANNERS, clock=lambda: 1000.0)
        slot = {"event": "slot", "id": 1, "url": URL, "purpose": "image"}
        assert gatekeeper.answer(slot)["path"] == "/robots.txt"

        policy = {"event": "policy", "origin": f"https://{HOST}", "path": "/robots.txt"}
        gatekeeper.answer(policy | {"status": status, "body": ""})

        assert gatekeeper.answer(slot)["reason"] == "unreachable"
        assert SiteFile.objects.get().status is None

    def test_a_file_that_could_not_be_written_down_is_free_for_another_crawl(self):
        class BrokenStore(SharedStore):
            def keep_file(self, origin, path, file):
                raise DatabaseError

        gatekeeper = Gatekeeper(BrokenStore(), MANNERS, clock=lambda: 1000.0)
        gatekeeper.answer({"event": "slot", "id": 1, "url": URL, "purpose": "image"})
        policy = {"event": "policy", "origin": f"https://{HOST}", "path": "/robots.txt", "status": 404}
        with pytest.raises(DatabaseError):
            gatekeeper.answer(policy)
        gatekeeper.close()

        assert SharedStore().claim_fetch(f"https://{HOST}", "/robots.txt", now=1001.0, until=1121.0)

    def test_forgets_what_nobody_has_asked_for_in_a_month(self):
        store = SharedStore()
        take(store, "a")
        let_everything_be_allowed(store)
        assert forget_hosts() == 0
        long_ago = timezone.now() - timedelta(days=31)
        HostRecord.objects.update(changed_at=long_ago)
        SiteFile.objects.filter(path="/robots.txt").update(changed_at=long_ago)

        assert forget_hosts() == 2

        assert (HostRecord.objects.count(), SiteFile.objects.count()) == (0, 1)

    def test_forgets_in_pieces_without_reading_what_is_forgotten(
        self, monkeypatch, django_assert_num_queries
    ):
        monkeypatch.setattr("scraping.services.shared_store.BATCH", 2)
        for number in range(3):
            SiteFile.objects.create(origin=f"https://{number}.example", path="/robots.txt", body=b"text")
        SiteFile.objects.update(changed_at=timezone.now() - timedelta(days=31))

        with django_assert_num_queries(6) as queries:  # hosts: 1, files: 2 + 2 + 1
            assert forget_hosts() == 3

        assert not [query["sql"] for query in queries if '"body"' in query["sql"]]

    def test_forgets_nothing_that_is_used_just_then(self):
        store = SharedStore()
        take(store, "a")
        let_everything_be_allowed(store)
        long_ago = timezone.now() - timedelta(days=31)
        for model in (HostRecord, SiteFile):
            model.objects.update(changed_at=long_ago)

        def use(execute, sql, params, many, context):
            if sql.startswith("DELETE"):
                for model in (HostRecord, SiteFile):
                    model.objects.filter(changed_at=long_ago).update(changed_at=timezone.now())
            return execute(sql, params, many, context)

        with connection.execute_wrapper(use):
            assert forget_hosts() == 0

        assert (HostRecord.objects.count(), SiteFile.objects.count()) == (1, 2)


@pytest.mark.django_db(transaction=True)
class TestManyAtOnce:
    def test_no_more_are_let_in_than_a_host_takes(self):
        quick = Manners(interval=1e-9, connections=3)
        # Each comes a little later than the one before, so that only the number of connections holds them back.
        verdicts = at_once(
            lambda number: take(SharedStore(), f"h{number}", now=1000.0 + number, manners=quick), range(12)
        )

        let_in = [verdict for verdict in verdicts if verdict is None]
        state = HostState(**HostRecord.objects.get(pk=HOST).state)
        assert len(state.holders) == len(let_in) == state.requests
        assert 1 <= len(let_in) <= 3

    def test_every_change_counts(self):
        def count(state):
            state.errors += 1

        at_once(lambda _: [SharedStore().change(HOST, count) for _ in range(10)], range(6))

        assert HostRecord.objects.get(pk=HOST).state["errors"] == 60

    def test_one_of_many_fetches_a_file(self):
        won = at_once(
            lambda _: SharedStore().claim_fetch(f"https://{HOST}", "/robots.txt", now=1000.0, until=1120.0),
            range(8),
        )

        assert won.count(True) == 1
