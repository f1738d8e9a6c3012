"""The machinery of purges, with a kind that deletes nothing."""

import importlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from io import StringIO

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import IntegrityError, OperationalError, connection, connections
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.errors import Invalid
from imagehub.jobs.clusters import Cluster
from imagehub.operations import purges, tasks
from imagehub.operations.models import Purge
from imagehub.operations.purge_command import PurgeCommand

pytestmark = pytest.mark.django_db


class Errand:
    """A kind of purge: what it was asked for, and how it goes."""

    def __init__(self):
        self.orders = []
        self.meanwhile = lambda: None
        self.freed = purges.Freed(bytes=2048)

    def perform(self, **order):
        self.orders.append(order)
        self.meanwhile()
        order["on_progress"]()
        return self.freed


class Command(PurgeCommand):
    help = "Run errands no more."
    kind = "errand"


@pytest.fixture
def errand(monkeypatch):
    """The only kind there is. Its retention is that of trainings."""
    monkeypatch.setattr(purges, "_kinds", {})
    errand = Errand()
    register(errand)
    return errand


def register(errand, name="errand", cluster=Cluster.DEFAULT):
    purges.register(
        purges.PurgeKind(
            name=name,
            things="errands",
            setting="training.retention_days",
            clock="purges.training_at",
            perform=errand.perform,
            counts={},
            cluster=cluster,
        )
    )


def purge(**fields):
    return Purge.objects.create(**{"kind": "errand", "origin": "clock", "older_than_days": 30} | fields)


def command(**options):
    output = StringIO()
    call_command(Command(), stdout=output, **options)
    return output.getvalue()


class TestRequest:
    def test_waits_for_its_cluster_and_is_done_there(self, errand, django_capture_on_commit_callbacks):
        user = UserFactory(staff=True)
        with django_capture_on_commit_callbacks(execute=True):
            asked = purges.request_purge("errand", user=user, older_than_days=7, is_dry_run=True)

        assert (asked.state, asked.origin, asked.requested_by) == ("waiting", "person", user)
        assert OrmQ.objects.get().func() == "imagehub.operations.tasks.purge_waiting"
        assert tasks.purge_waiting("default") == 1
        [order] = errand.orders
        assert order["cutoff"] == asked.created_at - timedelta(days=7)
        assert (order["is_dry_run"], order["limit"]) == (True, None)
        asked.refresh_from_db()
        assert (asked.state, asked.result) == ("done", {"bytes": 2048, "failed": 0, "errors": []})
        assert asked.finished_at is not None
        assert tasks.purge_waiting("default") == 0

    def test_without_an_age_where_retention_is_never_is_refused(self, errand, set_config):
        set_config("training: {retention_days: 0}")

        with pytest.raises(Invalid, match=r"training\.retention_days is 0") as refusal:
            purges.request_purge("errand", user=None)
        assert (refusal.value.pointer, refusal.value.code) == ("/older_than_days", "required")
        with pytest.raises(CommandError, match="--older-than"):
            command()
        assert not Purge.objects.exists()
        assert purges.request_purge("errand", user=None, older_than_days=0).older_than_days == 0

    def test_is_audited_unless_it_is_a_rehearsal(self, errand):
        purges.purge_now("errand", is_dry_run=True)
        assert not AuditEntry.objects.filter(action="errand.purge").exists()
        done = purges.purge_now("errand")
        entry = AuditEntry.objects.get(action="errand.purge")
        assert (entry.target_id, entry.after["bytes"]) == (str(done.pk), 2048)


@pytest.fixture
def no_clock(monkeypatch):
    """Let nothing be due."""
    monkeypatch.setattr(purges, "plan_due_purges", lambda: 0)


@pytest.mark.usefixtures("no_clock")
class TestWork:
    def test_whose_worker_died_is_done_by_another_and_not_by_two(self, errand):
        row = purge(state="working", worked_at=timezone.now())
        assert tasks.see_to_purges() == 0

        Purge.objects.filter(pk=row.pk).update(worked_at=timezone.now() - timedelta(hours=2))
        found = []
        errand.meanwhile = lambda: found.append(tasks.see_to_purges())

        assert tasks.see_to_purges() == 1
        assert found == [0]
        row.refresh_from_db()
        assert row.state == "done"

    def test_that_somebody_else_has_claimed_at_this_moment_is_left_to_him(self, errand):
        row = purge()
        is_taken = []

        def somebody_is_faster(execute, sql, params, many, context):
            if sql.startswith("UPDATE") and not is_taken:
                is_taken.append(True)
                Purge.objects.filter(pk=row.pk).update(state="working", worked_at=timezone.now())
            return execute(sql, params, many, context)

        with connection.execute_wrapper(somebody_is_faster):
            assert purges.purge_waiting(Cluster.DEFAULT) == 0
        assert is_taken
        assert not errand.orders

    def test_a_command_that_died_is_given_up(self, errand):
        row = purge(origin="command", state="working", worked_at=timezone.now() - timedelta(hours=2))

        assert tasks.purge_waiting("default") == 0
        assert tasks.see_to_purges() == 0
        row.refresh_from_db()
        assert (row.state, row.result) == ("failed", {"problem": "It was broken off"})
        assert not errand.orders

    def test_says_what_could_not_be_deleted(self, errand):
        errand.freed = purges.Freed(failed=3)
        done = purges.purge_now("errand")
        assert (done.state, done.result["problem"]) == ("failed", "Of 3 errands not all could be deleted")

    def test_an_unforeseen_failure_ends_that_purge_and_no_other(self, errand, caplog):
        purge()
        purge()

        def fails_once():
            if len(errand.orders) == 1:
                raise ValueError("/secret/path")

        errand.meanwhile = fails_once
        assert tasks.see_to_purges() == 2
        states = Purge.objects.order_by("created_at").values_list("state", flat=True)
        assert list(states) == ["failed", "done"]
        assert "secret" not in json.dumps(list(Purge.objects.values_list("result", flat=True)))
        assert "failed unexpectedly" in caplog.text

    def test_a_database_that_fails_leaves_it_to_be_gone_on_with(self, errand):
        def fails():
            raise OperationalError("gone")

        errand.meanwhile = fails
        row = purge()
        assert tasks.see_to_purges() == 0
        row.refresh_from_db()
        assert row.state == "working"

    def test_another_fault_of_the_database_ends_it(self, errand):
        def fails():
            raise IntegrityError("/secret/path")

        errand.meanwhile = fails
        row = purge()
        assert tasks.see_to_purges() == 1
        row.refresh_from_db()
        assert (row.state, row.result) == ("failed", {"problem": "It failed unexpectedly: the log says more"})

    def test_whose_files_cannot_be_seen_is_refused(self, errand):
        def refuses():
            raise purges.NotThere("No disk is there")

        errand.meanwhile = refuses
        row = purge()
        assert tasks.see_to_purges() == 1
        row.refresh_from_db()
        assert (row.state, row.result) == ("failed", {"problem": "No disk is there"})

    def test_that_was_taken_up_again_says_so_and_is_told_by_one(self, errand):
        """The first worker is only slow: it stops, and says nothing."""
        row = purge(origin="person")

        def stands_still():
            if len(errand.orders) == 1:
                Purge.objects.update(worked_at=timezone.now() - timedelta(hours=1))
                assert tasks.see_to_purges() == 1

        errand.meanwhile = stands_still
        assert tasks.see_to_purges() == 1

        row.refresh_from_db()
        assert (row.state, row.result["note"]) == ("done", purges.TAKEN_UP)
        assert purges.told(row).endswith(purges.TAKEN_UP)
        assert AuditEntry.objects.filter(action="errand.purge").count() == 1

    @pytest.mark.parametrize("last_words", [purges.Freed(), ValueError()])
    def test_says_nothing_any_more_where_another_has_ended_it(self, errand, last_words):
        row = purge(origin="person")
        freed = {"bytes": 1}

        def perform(**order):
            Purge.objects.filter(pk=row.pk).update(state="done", result=freed)
            if isinstance(last_words, Exception):
                raise last_words
            return last_words

        errand.perform = perform
        register(errand)
        tasks.see_to_purges()
        row.refresh_from_db()
        assert (row.state, row.result) == ("done", freed)
        assert not AuditEntry.objects.filter(action="errand.purge").exists()

    def test_by_the_clock_does_what_the_configuration_says_by_then(self, errand, set_config):
        long, never, asked = purge(), purge(), purge(origin="person", older_than_days=7)
        set_config("{training: {retention_days: 90}, purges: {dry_run: true}}")
        Purge.objects.filter(pk__in=[never.pk, asked.pk]).update(kind="later")
        assert tasks.see_to_purges() == 1
        assert errand.orders[0]["cutoff"] == long.created_at - timedelta(days=90)
        assert errand.orders[0]["is_dry_run"]

        register(errand, "later")
        set_config("training: {retention_days: 0}")
        assert tasks.see_to_purges() == 2
        [_, order] = errand.orders
        assert order["cutoff"] == asked.created_at - timedelta(days=7)
        long.refresh_from_db()
        never.refresh_from_db()
        assert (long.older_than_days, long.is_dry_run) == (90, True)
        assert (never.state, never.result) == ("done", {"note": purges.NOT_WANTED})

    def test_of_another_cluster_is_done_there(self, errand, django_capture_on_commit_callbacks):
        register(errand, "slow errand", Cluster.SCRAPING)
        purge(kind="slow errand")

        with django_capture_on_commit_callbacks(execute=True):
            assert tasks.see_to_purges() == 0
        assert OrmQ.objects.get().key == "scraping"
        assert tasks.purge_waiting("default") == 0
        assert tasks.purge_waiting("scraping") == 1

    def test_of_a_kind_that_nobody_knows_any_more_is_left_alone(self, errand):
        row = purge(kind="old")
        assert tasks.see_to_purges() == 0
        assert purges.told(row) == ""


class TestByTheClock:
    @pytest.fixture
    def seen(self):
        """The clock has seen to the kind before."""
        return purge(due_on=date(2026, 2, 1), state="done")

    @pytest.fixture
    def at(self, monkeypatch, set_config):
        """Let it be a time of a day; what is old goes at 03:15."""
        set_config("purges: {training_at: '03:15'}")

        def at(text):
            now = datetime.fromisoformat(text).replace(tzinfo=UTC)
            monkeypatch.setattr(timezone, "now", lambda: now)

        return at

    def test_that_sees_a_kind_for_the_first_time_deletes_nothing_until_it_strikes(self, errand, at):
        for early in ("2026-03-02T03:20", "2026-03-02T03:25", "2026-03-03T03:14"):
            at(early)
            assert tasks.see_to_purges() == 0
        row = Purge.objects.get()
        assert (row.state, row.is_dry_run, purges.told(row)) == ("done", True, purges.FIRST_SEEN)
        assert not errand.orders

        at("2026-03-03T03:15")
        assert tasks.see_to_purges() == 1
        assert len(errand.orders) == 1

    def test_once_a_day_and_not_before_its_hour(self, errand, seen, at):
        at("2026-03-02T03:15")
        assert tasks.see_to_purges() == 1
        row = Purge.objects.latest("due_on")
        assert (row.origin, row.older_than_days, row.state, row.due_on) == (
            "clock",
            30,
            "done",
            date(2026, 3, 2),
        )

        for later in ("2026-03-02T03:20", "2026-03-02T23:55", "2026-03-03T03:14"):
            at(later)
            assert tasks.see_to_purges() == 0
        at("2026-03-03T03:16")
        assert tasks.see_to_purges() == 1

    def test_a_change_of_the_hour_holds_at_once(self, errand, seen, at, set_config):
        at("2026-03-02T03:15")
        assert tasks.see_to_purges() == 1
        set_config("purges: {training_at: '12:00'}")
        at("2026-03-03T03:20")
        assert tasks.see_to_purges() == 0
        set_config("purges: {training_at: '03:00'}")
        assert tasks.see_to_purges() == 1

    def test_days_on_which_nothing_ran_are_made_up_for_once(self, errand, seen, at):
        at("2026-03-02T03:15")
        tasks.see_to_purges()
        at("2026-03-07T01:00")
        assert tasks.see_to_purges() == 1
        assert tasks.see_to_purges() == 0
        assert Purge.objects.latest("due_on").due_on == date(2026, 3, 6)

    def test_only_tells_where_that_is_configured(self, errand, seen, set_config):
        set_config("purges: {dry_run: true}")
        assert tasks.see_to_purges() == 1
        assert Purge.objects.latest("due_on").is_dry_run
        assert errand.orders[0]["is_dry_run"]

    def test_never_does_only_what_waits(self, errand, set_config):
        set_config("training: {retention_days: 0}")
        assert tasks.see_to_purges() == 0
        purge(origin="person")
        assert tasks.see_to_purges() == 1
        assert Purge.objects.count() == 1

    def test_old_records_go(self, errand):
        purge(state="done", finished_at=timezone.now() - timedelta(days=100))
        tasks.see_to_purges()
        assert Purge.objects.get().due_on is not None

    @pytest.mark.django_db(transaction=True)
    def test_two_machines_at_once_plan_and_do_it_once(self, errand, seen):
        both = threading.Barrier(2, timeout=60)

        def machine(_):
            both.wait()
            try:
                return tasks.see_to_purges()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(2) as machines:
            assert sum(machines.map(machine, range(2))) == 1
        assert Purge.objects.exclude(pk=seen.pk).count() == len(errand.orders) == 1

    def test_each_kind_has_its_hour_and_none_a_schedule_of_its_own(self):
        now = datetime(2026, 3, 2, 4, 0, tzinfo=UTC)
        due = {kind.name: kind.last_due(now).day for kind in purges.kinds()}
        assert due == {"training": 2, "generation": 2, "trash": 1, "scraping": 1}
        for name in ("operations", "training", "scraping"):
            config = apps.get_app_config(name)
            importlib.import_module(f"{config.name}.apps")._ensure_schedules()
        schedule = Schedule.objects.get(name__contains="urge")
        assert (schedule.name, schedule.func, schedule.minutes) == (
            "Do purges",
            "imagehub.operations.tasks.see_to_purges",
            5,
        )

    def test_schedules_of_before_are_deleted(self):
        for name in ("Purge trainings", "Purge scrapes", "Do purges"):
            Schedule.objects.update_or_create(name=name, defaults={"func": "somewhere"})
        migration = importlib.import_module("imagehub.operations.migrations.0003_no_schedules_of_purges")
        migration.delete_schedules(apps, None)
        assert [row.name for row in Schedule.objects.filter(name__contains="urge")] == ["Do purges"]


def test_tells_of_some_what_was_in_the_way_and_counts_all(errand):
    errand.freed = purges.Freed()
    for number in range(30):
        errand.freed.fail(f"errand {number}", "Input/output error")

    done = purges.purge_now("errand")

    assert (done.result["failed"], len(done.result["errors"])) == (30, purges.MOST_TOLD)
    assert done.result["errors"][0] == "errand 0: Input/output error"


class TestCommand:
    def test_does_it_at_once_and_leaves_a_record(self, errand):
        told = json.loads(command(older_than=3, limit=5, dry_run=True, as_json=True))

        row = Purge.objects.get()
        assert told == {
            "purge": str(row.pk),
            "kind": "errand",
            "state": "done",
            "older_than_days": 3,
            "limit": 5,
            "dry_run": True,
            "bytes": 2048,
            "failed": 0,
            "errors": [],
        }
        assert (row.origin, row.state, row.limit) == ("command", "done", 5)
        assert errand.orders[0]["limit"] == 5

    def test_fails_where_something_is_left_and_still_prints_its_object(self, errand):
        errand.freed = purges.Freed(failed=1)
        output = StringIO()
        with pytest.raises(CommandError, match="Of 1 errands not all could be deleted") as failure:
            call_command(Command(), as_json=True, stdout=output)
        assert failure.value.returncode == 1
        assert json.loads(output.getvalue())["failed"] == 1

    def test_that_somebody_stops_is_not_gone_on_with(self, errand):
        def stopped():
            raise KeyboardInterrupt

        errand.meanwhile = stopped
        with pytest.raises(KeyboardInterrupt):
            command()
        assert (Purge.objects.get().state, Purge.objects.get().result["problem"]) == (
            "failed",
            "It was broken off",
        )

    @pytest.mark.parametrize("options", [{"older_than": -1}, {"older_than": 36_501}, {"limit": 0}])
    def test_refuses_nonsense(self, errand, options):
        with pytest.raises(CommandError):
            command(**options)
        assert not errand.orders
