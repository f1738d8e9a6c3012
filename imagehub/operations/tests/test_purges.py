"""The machinery of purges, with a kind that deletes nothing."""

import importlib
import json
from datetime import timedelta
from io import StringIO

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from django_q.models import OrmQ, Schedule
from rest_framework.test import APIClient

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
        assert (asked.state, asked.result) == ("done", {"bytes": 2048, "failed": 0})
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
        assert (done.state, done.result["problem"]) == ("failed", "Files of 3 errands could not be deleted")

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
    def test_nothing_is_sent_and_old_records_go(self, errand, monkeypatch):
        monkeypatch.setattr(purges, "send", lambda *_: pytest.fail("a second worker would do the same"))
        purge(state="done", finished_at=timezone.now() - timedelta(days=100))

        assert purges.purge_by_the_clock("errand") == 1
        row = Purge.objects.get()
        assert (row.origin, row.older_than_days, row.state) == ("clock", 30, "done")

    def test_never_does_only_what_waits(self, errand, set_config):
        set_config("training: {retention_days: 0}")
        assert purges.purge_by_the_clock("errand") == 0
        purge(origin="person")
        assert purges.purge_by_the_clock("errand") == 1
        assert Purge.objects.count() == 1

    def test_each_kind_has_a_schedule_and_all_have_one_for_what_waits(self):
        for app in ("operations", "training", "scraping"):
            config = apps.get_app_config(app)
            importlib.import_module(f"{config.name}.apps")._ensure_schedules()
        found = {row.name: row for row in Schedule.objects.filter(name__contains="urge")}
        assert {
            name: (row.func, f"{row.next_run:%H:%M}") for name, row in found.items() if name != "Do purges"
        } == {
            "Purge trainings": ("training.tasks.purge_by_the_clock", "03:15"),
            "Purge scrapes": ("scraping.tasks.purge_by_the_clock", "04:45"),
        }
        assert (found["Do purges"].func, found["Do purges"].minutes) == (
            "imagehub.operations.tasks.see_to_purges",
            10,
        )


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
        }
        assert (row.origin, row.state, row.limit) == ("command", "done", 5)
        assert errand.orders[0]["limit"] == 5

    def test_fails_where_something_is_left_and_still_prints_its_object(self, errand):
        errand.freed = purges.Freed(failed=1)
        output = StringIO()
        with pytest.raises(CommandError, match="Files of 1 errands could not be deleted") as failure:
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


@pytest.mark.parametrize("app", ["training", "scraping"])
class TestApi:
    @pytest.fixture
    def staff(self):
        client = APIClient()
        client.force_authenticate(UserFactory(staff=True))
        return client

    def test_asks_and_tells(self, app, staff):
        asked = staff.post(
            f"/api/{app}/artifacts/purge", {"older_than_days": 9, "dry_run": True}, format="json"
        )
        assert asked.status_code == 202
        assert {
            name: asked.json()[name] for name in ("kind", "origin", "state", "older_than_days", "dry_run")
        } == {
            "kind": app,
            "origin": "person",
            "state": "waiting",
            "older_than_days": 9,
            "dry_run": True,
        }

        assert tasks.purge_waiting("default") == 1
        told = staff.get(asked.headers["Location"]).json()
        assert (told["id"], told["state"], told["result"]["failed"]) == (asked.json()["id"], "done", 0)

    def test_knows_the_records_of_its_own_kind_only(self, app, staff):
        other = purge(kind="something else")
        assert staff.get(f"/api/{app}/artifacts/purge/{other.pk}").status_code == 404

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"older_than_days": True}, "/older_than_days"),
            ({"older_than_days": -1}, "/older_than_days"),
            ({"older_than_days": 36_501}, "/older_than_days"),
            ({"dry_run": "yes"}, "/dry_run"),
            ({"days": 3}, "/days"),
        ],
    )
    def test_refuses_nonsense(self, app, staff, body, pointer):
        answer = staff.post(f"/api/{app}/artifacts/purge", body, format="json")
        assert answer.status_code == 400
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
        assert not Purge.objects.exists()

    def test_needs_an_age_where_retention_is_never(self, app, staff, set_config):
        set_config(f"{app}: {{retention_days: 0}}")
        answer = staff.post(f"/api/{app}/artifacts/purge", {}, format="json")
        assert answer.status_code == 400
        [fault] = answer.json()["errors"]
        assert (fault["pointer"], fault["code"]) == ("/older_than_days", "required")


def test_the_admin_lists_purges_of_all_kinds_and_changes_none(client, django_assert_max_num_queries):
    client.force_login(UserFactory(staff=True))
    result = {"crawls": 3, "items": 20, "pages": 4, "bytes": 2048}
    for _ in range(5):
        purge(kind="scraping", origin="person", requested_by=UserFactory(), state="done", result=result)
    row = purge(kind="training", state="failed", result={"problem": "Files of 1 runs could not be deleted"})
    purge(kind="forgotten", result={"bytes": 1})

    with django_assert_max_num_queries(8):
        page = client.get("/admin/operations/purge/")
    assert page.status_code == 200
    assert "3 crawls, 20 addresses of pictures, 4 addresses of pages (2.0\N{NO-BREAK SPACE}KB)" in page.text
    assert "Files of 1 runs could not be deleted" in page.text
    assert client.get(f"/admin/operations/purge/{row.pk}/change/").status_code == 200
    assert client.post(f"/admin/operations/purge/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.get("/admin/operations/purge/add/").status_code == 403


class TestRecordsOfBefore:
    pytestmark = pytest.mark.django_db(transaction=True)

    def test_move_along_and_back(self):
        def migrate(*targets):
            executor = MigrationExecutor(connection)
            return executor.migrate(list(targets)).apps

        owner = UserFactory()
        latest = MigrationExecutor(connection).loader.graph.leaf_nodes()
        new = purge(kind="training", origin="person", requested_by=owner, state="done", result={"runs": 2})
        purge(kind="scraping")
        try:
            old = migrate(("training", "0009_promotion_state")).get_model("training", "Purge").objects
            assert old.values_list("pk", "requested_by", "state", "result").get() == (
                new.pk,
                owner.pk,
                "done",
                {"runs": 2},
            )
            assert Schedule.objects.get(name="Do purges").func == "training.tasks.purge_waiting"
            old.create(older_than_days=5)
        finally:
            migrate(*latest)

        moved = Purge.objects.filter(kind="training").order_by("older_than_days")
        assert list(moved.values_list("older_than_days", "origin", "state")) == [
            (5, "clock", "waiting"),
            (30, "person", "done"),
        ]
        assert Purge.objects.get(pk=new.pk).created_at == new.created_at
        assert Schedule.objects.get(name="Do purges").func == "imagehub.operations.tasks.see_to_purges"
