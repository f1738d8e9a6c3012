import json
import threading

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from imagehub.accounts import audit, services
from imagehub.accounts.models import ApiToken, AuditEntry, AuditIsFinal
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = pytest.mark.django_db
CAPTION = "a violet zeppelin over the silent harbour"


def entries(**values):
    return list(AuditEntry.objects.filter(**values).order_by("id"))


def answering(user, method="POST", path="/api/things", **extra):
    request = RequestFactory().generic(method, path, **extra)
    request.user = user
    return audit.answering(request)


@pytest.fixture
def staff():
    return UserFactory(staff=True, username="ada")


class TestRecordedBySignals:
    def test_a_new_row_with_its_values(self, staff):
        with answering(staff, REMOTE_ADDR="203.0.113.9"):
            errand = ErrandFactory(owner=staff, seconds=2.5)

        [entry] = entries(action="errand.create")
        assert (entry.actor, entry.actor_name, entry.via, entry.address) == (
            staff,
            "ada",
            "session",
            "203.0.113.9",
        )
        assert (entry.target_type, entry.target_id) == ("errands.errand", str(errand.pk))
        assert (entry.before, entry.after["seconds"], entry.after["owner"]) == ({}, 2.5, staff.pk)

    def test_a_change_with_what_changed_alone(self, staff):
        errand = ErrandFactory(seconds=1.0, behaviour="good")

        with answering(staff):
            errand.seconds = 2.0
            errand.save()

        [entry] = entries(action="errand.change")
        assert (entry.before, entry.after) == ({"seconds": 1.0}, {"seconds": 2.0})

    def test_a_change_of_some_fields_without_the_others(self, staff):
        errand = ErrandFactory(seconds=1.0)

        with answering(staff):
            errand.seconds, errand.message = 2.0, "not saved"
            errand.save(update_fields=["seconds"])

        assert entries(action="errand.change")[0].after == {"seconds": 2.0}

    def test_nothing_when_nothing_changed(self, staff):
        errand = ErrandFactory()

        with answering(staff):
            errand.save()

        assert entries(action="errand.change") == []

    def test_a_deletion_with_what_was_lost_and_one_entry_for_all_that_goes_along(self, staff):
        errand = ErrandFactory(seconds=1.0)
        errand.effects.create(pid=1)

        with answering(staff):
            errand.delete()

        [entry] = entries(target_type__startswith="errands.")
        assert (entry.action, entry.before["seconds"], entry.after) == ("errand.delete", 1.0, {})

    def test_each_row_of_a_queryset_that_is_deleted(self, staff):
        chosen = [ErrandFactory() for _ in range(2)]

        with answering(staff):
            Errand.objects.all().delete()

        assert {entry.target_id for entry in entries(action="errand.delete")} == {
            str(row.pk) for row in chosen
        }

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    def test_nothing_of_a_request_that_only_looks(self, staff, method):
        with answering(staff, method):
            ErrandFactory()

        assert entries(action="errand.create") == []

    def test_nothing_of_work_that_nobody_asked_for_in_a_request(self):
        ErrandFactory().save()

        assert entries(target_type="errands.errand") == []

    def test_nothing_of_what_another_thread_does_meanwhile(self, staff):
        seen = []
        with answering(staff):
            thread = threading.Thread(target=lambda: seen.append(audit.is_change_by_user()))
            thread.start()
            thread.join()
            assert audit.is_change_by_user()

        assert seen == [False]

    def test_who_may_do_what_whoever_changes_it(self):
        user, group = UserFactory(), Group.objects.create(name="editors")

        user.is_staff = True
        user.save()
        user.groups.add(group)
        group.user_set.remove(user)

        changes = [(entry.before, entry.after) for entry in entries(action="user.change")]
        assert changes == [
            ({"is_staff": False}, {"is_staff": True}),
            ({"groups": []}, {"groups": ["editors"]}),
        ]
        [of_group] = entries(action="group.change")
        assert (of_group.before, of_group.after) == ({"user_set": [user.username]}, {"user_set": []})

    def test_a_password_as_length_and_hash(self, staff):
        staff.set_password("correct horse battery")
        staff.save()

        [entry] = entries(action="user.change")
        assert entry.after["password"].keys() == {"length", "sha256"}
        assert staff.password not in json.dumps(entry.after)


class TestRecordedExplicitly:
    def test_a_revoked_token_once(self, staff):
        token = ApiTokenFactory()

        with answering(staff):
            services.revoke_token(token)
            services.revoke_token(token)

        [entry] = entries(action="token.revoke")
        assert (entry.target_id, entry.before["revoked_at"]) == (str(token.pk), None)

    def test_a_token_made_by_the_command(self, capsys):
        call_command("create_token", "--email", "ada@example.com", "--staff")

        secret = capsys.readouterr().out.strip()
        assert [(entry.action, entry.via) for entry in entries()] == [
            ("user.create", "command"),
            ("user.change", "command"),
            ("token.create", "command"),
        ]
        assert secret not in str([(entry.target_label, entry.after) for entry in entries()])


class TestSignIn:
    def sign_in(self, client, name, password):
        return client.post(reverse("admin:login"), {"username": name, "password": password})

    def test_that_works_and_signing_out(self, client):
        user = User.objects.create_user("ada", password="correct horse", is_staff=True)

        self.sign_in(client, "ada", "correct horse")
        client.post(reverse("admin:logout"))

        for action in ("sign_in", "sign_out"):
            [entry] = entries(action=action)
            assert (entry.actor, entry.target_id, entry.via, entry.address) == (
                user,
                str(user.pk),
                "admin",
                "127.0.0.1",
            )
        assert entries(action="user.change") == []

    def test_that_fails_without_the_password(self, client):
        user = User.objects.create_user("ada", password="correct horse")

        self.sign_in(client, "ada", "wrong battery")

        [entry] = entries(action="sign_in_failed")
        assert (entry.actor, entry.target_id) == (None, str(user.pk))
        assert "battery" not in str(AuditEntry.objects.values().get(pk=entry.pk))

    @pytest.mark.parametrize("name", ["correct horse", "a\x00b", "é" * 300])
    def test_that_fails_without_a_name_that_may_be_a_password(self, client, name):
        assert self.sign_in(client, name, "x").status_code == 200

        for entry in entries(action="sign_in_failed"):
            assert entry.target_id == ""
            assert name not in str(AuditEntry.objects.values().get(pk=entry.pk))


class TestActor:
    def test_through_a_token(self, staff):
        token = ApiTokenFactory(user=staff)
        request = RequestFactory().post("/api/things")
        request.user, request.auth = staff, token

        with audit.answering(request):
            actor = audit.current_actor()

        assert (actor.user, actor.via) == (staff, "token")

    def test_in_the_admin(self, staff):
        with answering(staff, path="/admin/albums/album/add/"):
            assert audit.current_actor().via == "admin"

    def test_of_nothing_is_the_system(self):
        assert audit.current_actor() == audit.Actor(None, audit.Via.SYSTEM)

    def test_keeps_its_name_when_the_user_is_deleted(self, staff):
        with answering(staff):
            ErrandFactory()

        User.objects.filter(username="ada").delete()

        [entry] = entries(action="errand.create")
        assert (entry.actor, entry.actor_name) == (None, "ada")


class TestPresentable:
    @pytest.mark.parametrize(
        "name",
        [
            "prompt",
            "negative_prompt",
            "base_prompt",
            "caption",
            "theme",
            "password",
            "client_secret",
            "digest",
        ],
    )
    def test_keeps_length_and_hash_of_what_is_sensitive(self, name):
        [value] = audit.presentable({name: CAPTION}).values()

        assert value.keys() == {"length", "sha256"}
        assert (value["length"], len(value["sha256"])) == (len(CAPTION), audit.HASH_LENGTH)
        assert value == audit.presentable({name: CAPTION})[name]
        assert value != audit.presentable({name: CAPTION + "!"})[name]

    def test_looks_into_lists_and_objects(self):
        values = audit.presentable({"config": [{"validation_prompt": CAPTION, "rank": 4}]})

        assert values["config"][0]["rank"] == 4
        assert CAPTION not in json.dumps(values)

    def test_keeps_a_long_value_as_its_length(self):
        assert audit.presentable({"description": "x" * 5000})["description"]["length"] == 5000

    def test_keeps_everything_else(self):
        now = timezone.now()

        values = audit.presentable(
            {"name": "x", "n": 3, "at": now, "prompt": "", "token": None, "is_open": False}
        )

        assert values == {
            "name": "x",
            "n": 3,
            "at": values["at"],
            "prompt": "",
            "token": None,
            "is_open": False,
        }


class TestFinality:
    def test_an_entry_cannot_be_changed_or_deleted(self):
        entry = audit.record("test")

        entry.action = "something else"
        with pytest.raises(AuditIsFinal):
            entry.save()
        with pytest.raises(AuditIsFinal):
            AuditEntry.objects.get(pk=entry.pk).save()
        with pytest.raises(AuditIsFinal):
            entry.delete()

        assert AuditEntry.objects.get(pk=entry.pk).action == "test"


class TestDeactivation:
    @pytest.mark.parametrize(("status", "after"), [("pending", "cancelled"), ("queued", "cancelled")])
    def test_cancels_what_waits(self, status, after):
        errand = ErrandFactory(status=status)

        errand.owner.is_active = False
        errand.owner.save()

        errand.refresh_from_db()
        assert errand.status == after
        [entry] = entries(action="user.cancel_jobs")
        assert entry.after == {"errand": 1}

    def test_asks_what_runs_to_stop(self):
        errand = ErrandFactory()
        claimed = Errand.objects.claim(worker="test")

        errand.owner.is_active = False
        errand.owner.save()

        claimed.refresh_from_db()
        assert (claimed.status, claimed.cancel_requested_at is not None) == (JobStatus.RUNNING, True)

    def test_leaves_the_jobs_of_others_and_of_active_users_alone(self):
        others, own = ErrandFactory(), ErrandFactory()
        own.owner.first_name = "Ada"
        own.owner.save()
        UserFactory(deactivated=True)

        assert set(Errand.objects.values_list("status", flat=True)) == {JobStatus.QUEUED}
        assert others.owner != own.owner

    def test_ends_sessions_and_tokens_at_once(self, staff):
        browser = Client()
        browser.force_login(staff)
        ApiTokenFactory(user=staff, secret="ih_s3cret-s3cret")
        program = Client(headers={"Authorization": "Bearer ih_s3cret-s3cret"})
        assert (browser.get("/api/jobs").status_code, program.get("/api/jobs").status_code) == (200, 200)

        staff.is_active = False
        staff.save()

        assert (browser.get("/api/jobs").status_code, program.get("/api/jobs").status_code) == (401, 401)

    def test_a_lost_role_is_lost_at_once(self, staff):
        browser = Client()
        browser.force_login(staff)
        staff.is_staff = False
        staff.save()

        assert browser.get("/api/jobs").status_code == 403
        assert browser.get("/admin/").status_code == 302


@pytest.mark.django_db(transaction=True)
class TestOneTransaction:
    """What cannot be recorded is not done."""

    @pytest.fixture(autouse=True)
    def _broken_trail(self, monkeypatch):
        self.user = UserFactory(staff=True, is_superuser=True)
        self.token = ApiTokenFactory(user=self.user)
        self.browser = Client(raise_request_exception=False)
        self.browser.force_login(self.user)

        def refuse(*_, **__):
            assert connection.in_atomic_block
            raise RuntimeError("the trail cannot be written")

        monkeypatch.setattr(AuditEntry, "save", refuse)

    def test_a_token_is_not_made(self):
        body = {"name": "laptop", "scopes": ["read"]}

        assert self.browser.post("/api/auth/tokens", body, content_type="application/json").status_code == 500
        assert ApiToken.objects.count() == 1

    def test_a_token_is_not_revoked(self):
        assert self.browser.delete(f"/api/auth/tokens/{self.token.pk}").status_code == 500
        self.token.refresh_from_db()
        assert self.token.revoked_at is None

    def test_a_user_is_not_changed_in_the_admin(self):
        url = reverse("admin:auth_user_change", args=[self.user.pk])
        form = self.browser.get(url).context["adminform"].form
        values = {name: value for name, value in form.initial.items() if value not in (None, False)}

        response = self.browser.post(
            url, values | {"first_name": "Ada", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
        )

        assert response.status_code == 500
        self.user.refresh_from_db()
        assert self.user.first_name == ""

    def test_a_command_makes_no_token(self):
        with pytest.raises(RuntimeError):
            call_command("create_token", "--email", self.user.username)
        assert ApiToken.objects.count() == 1


def test_a_number_is_told_whatever_its_field_is_called():
    assert audit.presentable({"generation.max_prompt_length": 1500}) == {"generation.max_prompt_length": 1500}


def test_what_no_database_can_store_is_replaced():
    assert audit.presentable({"name": "a\ud800b\0c"}) == {"name": "a?b\ufffdc"}
