"""Asking for purges over the API and in the admin, what is seen of them there, and their records of before."""

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django_q.models import OrmQ, Schedule
from rest_framework.test import APIClient

from imagehub.accounts.tests.factories import UserFactory
from imagehub.operations import tasks
from imagehub.operations.models import Purge

pytestmark = pytest.mark.django_db


def purge(**fields):
    return Purge.objects.create(**{"kind": "errand", "origin": "clock", "older_than_days": 30} | fields)


PATHS = {
    "training": "/api/training/artifacts/purge",
    "scraping": "/api/scraping/artifacts/purge",
    "generation": "/api/jobs/artifacts/purge",
    "trash": "/api/images/trash/purge",
}


@pytest.mark.parametrize("app", PATHS)
class TestApi:
    @pytest.fixture
    def staff(self):
        client = APIClient()
        client.force_authenticate(UserFactory(staff=True))
        return client

    def test_asks_and_tells(self, app, staff):
        asked = staff.post(PATHS[app], {"older_than_days": 9, "limit": 5, "dry_run": True}, format="json")
        assert asked.status_code == 202
        assert {
            name: asked.json()[name]
            for name in ("kind", "origin", "state", "older_than_days", "limit", "dry_run")
        } == {
            "kind": app,
            "origin": "person",
            "state": "waiting",
            "older_than_days": 9,
            "limit": 5,
            "dry_run": True,
        }

        assert tasks.purge_waiting("default") == 1
        told = staff.get(asked.headers["Location"]).json()
        assert (told["id"], told["state"], told["result"]["failed"]) == (asked.json()["id"], "done", 0)

    def test_knows_the_records_of_its_own_kind_only(self, app, staff):
        other = purge(kind="something else")
        assert staff.get(f"{PATHS[app]}/{other.pk}").status_code == 404

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"older_than_days": True}, "/older_than_days"),
            ({"older_than_days": -1}, "/older_than_days"),
            ({"older_than_days": 36_501}, "/older_than_days"),
            ({"limit": 0}, "/limit"),
            ({"dry_run": "yes"}, "/dry_run"),
            ({"days": 3}, "/days"),
        ],
    )
    def test_refuses_nonsense(self, app, staff, body, pointer):
        answer = staff.post(PATHS[app], body, format="json")
        assert answer.status_code == 400
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
        assert not Purge.objects.exists()

    def test_needs_an_age_where_retention_is_never(self, app, staff, set_config):
        set_config(f"{app}: {{retention_days: 0}}")
        answer = staff.post(PATHS[app], {}, format="json")
        assert answer.status_code == 400
        [fault] = answer.json()["errors"]
        assert (fault["pointer"], fault["code"]) == ("/older_than_days", "required")


def test_the_admin_lists_purges_of_all_kinds_and_changes_none(client, django_assert_max_num_queries):
    client.force_login(UserFactory(staff=True))
    result = {"crawls": 3, "items": 20, "pages": 4, "bytes": 2048}
    for _ in range(5):
        purge(kind="scraping", origin="person", requested_by=UserFactory(), state="done", result=result)
    row = purge(kind="training", state="failed", result={"problem": "Of 1 runs not all could be deleted"})
    purge(kind="forgotten", result={"bytes": 1})

    with django_assert_max_num_queries(8):
        page = client.get("/admin/operations/purge/")
    assert page.status_code == 200
    assert "3 crawls, 20 addresses of pictures, 4 addresses of pages (2.0\N{NO-BREAK SPACE}KB)" in page.text
    assert "Of 1 runs not all could be deleted" in page.text
    assert client.get(f"/admin/operations/purge/{row.pk}/change/").status_code == 200
    assert client.post(f"/admin/operations/purge/{row.pk}/delete/", {"post": "yes"}).status_code == 403


class TestAskingInTheAdmin:
    ADD = "/admin/operations/purge/add/"

    def test_makes_a_purge_that_waits(self, client, django_capture_on_commit_callbacks):
        user = UserFactory(staff=True)
        client.force_login(user)
        page = client.get(self.ADD, {"kind": "trash"})
        assert page.status_code == 200
        assert '<option value="trash" selected>' in page.text

        form = {"kind": "trash", "older_than_days": "9", "limit": "", "is_dry_run": "on"}
        with django_capture_on_commit_callbacks(execute=True):
            assert client.post(self.ADD, form).status_code == 302

        row = Purge.objects.get()
        assert (row.kind, row.origin, row.requested_by, row.older_than_days, row.limit, row.is_dry_run, row.state) == (
            "trash", "person", user, 9, None, True, "waiting",
        )  # fmt: skip
        assert OrmQ.objects.get().func() == "imagehub.operations.tasks.purge_waiting"
        assert client.get(f"/admin/operations/purge/{row.pk}/change/").status_code == 200
        assert tasks.purge_waiting("default") == 1

    def test_needs_an_age_where_retention_is_never_and_a_kind_that_is_there(self, client, set_config):
        client.force_login(UserFactory(staff=True))
        set_config("trash: {retention_days: 0}")
        for form, words in (
            ({"kind": "trash"}, "trash.retention_days is 0"),
            ({"kind": "everything"}, "is not one of the available choices"),
            ({"kind": "trash", "older_than_days": "-1"}, "greater than or equal to 0"),
        ):
            page = client.post(self.ADD, form)
            assert page.status_code == 200
            assert words in page.text
        assert not Purge.objects.exists()

    def test_is_not_for_everybody(self, client):
        client.force_login(UserFactory())
        assert client.post(self.ADD, {"kind": "trash", "older_than_days": "1"}).status_code in {302, 403}
        assert not Purge.objects.exists()


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
