import json
import os

import pytest
from django.db import DatabaseError
from rest_framework.test import APIClient

from imagehub import config
from imagehub.accounts import audit
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.config_file import editing

pytestmark = pytest.mark.django_db

CONFIG, CACHE, RELOAD = "/api/config", "/api/admin/config/cache", "/api/admin/config/reload"


@pytest.fixture
def staff():
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    return client


@pytest.fixture
def session():
    """Staff with a session, whose changes are recorded under a name."""
    client = APIClient()
    client.force_login(UserFactory(staff=True))
    return client


class TestChange:
    def test_shows_what_is_in_force_with_defaults_and_paths(self, staff, set_config, settings, tmp_path):
        set_config("engine: {threads: 3}\npaths: {models: /srv/models, media: /srv/media}")
        settings.NAMED_ROOTS = {"media": "/mnt/media"}

        body = staff.get(CONFIG).json()

        assert body["engine"]["threads"] == 3
        assert body["generation"]["steps"] == {"minimum": 1, "maximum": 150}
        assert body["paths"] == {
            "media": "/mnt/media",
            "models": "/srv/models",
            "training": str(tmp_path / "training"),
            "scraping": str(tmp_path / "scraping"),
        }

    def test_holds_at_once_and_answers_with_the_whole(self, staff):
        response = staff.patch(CONFIG, {"rate_limits": {"generate": {"limit": 12}}})

        assert response.status_code == 200
        assert response.json() == staff.get(CONFIG).json()
        assert response.json()["rate_limits"]["generate"] == {"limit": 12, "window_seconds": 60}
        assert config.get_config().rate_limits.generate.limit == 12

    def test_keeps_the_comments_of_the_file(self, staff, settings, set_config):
        set_config("engine:\n  threads: 2   # two cores\n")

        staff.patch(CONFIG, {"engine": {"threads": 4}})

        assert settings.CONFIG_FILE.read_text() == "engine:\n  threads: 4   # two cores\n"

    def test_is_recorded_with_before_and_after(self, session):
        session.patch(CONFIG, {"engine": {"threads": 4, "device": "cpu"}})

        entry = AuditEntry.objects.get(action="config.change")
        assert entry.actor is not None
        assert entry.before == {"engine.threads": 1, "engine.device": "auto"}
        assert entry.after == {"engine.threads": 4, "engine.device": "cpu"}

    def test_what_cannot_be_recorded_does_not_happen(self, staff, settings, monkeypatch):
        def fail(*_, **__):
            raise DatabaseError

        monkeypatch.setattr(audit, "record", fail)
        before = settings.CONFIG_FILE.read_text()

        with pytest.raises(DatabaseError):
            staff.patch(CONFIG, {"engine": {"threads": 4}})
        assert settings.CONFIG_FILE.read_text() == before

    @pytest.mark.parametrize(
        ("body", "pointers"),
        [
            ({"engine": {"threads": 0}}, ["/engine/threads"]),
            ({"engine": {"threads": "4"}, "nope": 1}, ["/nope"]),
            ({"engine": {"threads": "4", "device": "tpu"}}, ["/engine/device", "/engine/threads"]),
            ({"generation": {"steps": {"minimum": 9, "maximum": 3}}}, ["/generation/steps"]),
            ({"storage": {"thumbnail_sizes": [150, 0]}}, ["/storage/thumbnail_sizes/1"]),
            ({"engine": 5}, ["/engine"]),
            ({"engine": {"wall_seconds": 10_000_000}}, ["/engine/wall_seconds"]),
            ({"generation": {"images_per_job": 64}}, [""]),  # longer than its cluster lets a job run
            ({"rate_limits": {"generate": {"limit": 3}}}, [""]),  # a job of eight would never fit
            ({"paths": {"media": "/etc"}}, ["/paths"]),
            ({"training": {"external": {"command": ["sh", "-c", "id"]}}}, ["/training/external"]),
            ({"generation": {"default_model": "\ud800"}}, ["/generation/default_model"]),
            ({"generation": {"default_model": "a\0b"}}, ["/generation/default_model"]),
            ({"generation": {"default_model": "x" * 1_100_000}}, [""]),
            ([], [""]),
        ],
    )
    def test_names_what_is_wrong_and_changes_nothing(self, staff, settings, body, pointers):
        before = settings.CONFIG_FILE.read_text()

        # Escaped by hand: the client of the tests cannot send half a surrogate pair.
        response = staff.patch(CONFIG, json.dumps(body), content_type="application/json")

        assert response.status_code == 400
        assert (
            sorted(error["pointer"] for error in response.json().get("errors", [{"pointer": ""}])) == pointers
        )
        assert settings.CONFIG_FILE.read_text() == before
        assert not AuditEntry.objects.filter(action="config.change").exists()

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"paths": None}, "/paths"),
            ({"training": {"external": None, "threads": 2}}, "/training/external"),
            ({"training": None}, "/training/external"),
        ],
    )
    def test_what_is_not_for_callers_is_not_taken_out_either(
        self, staff, settings, set_config, body, pointer
    ):
        set_config('paths: {scraping: /srv/scraping}\ntraining: {external: {command: ["x"]}}\n')
        before = settings.CONFIG_FILE.read_text()

        response = staff.patch(CONFIG, body)

        assert response.status_code == 400
        assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
        assert settings.CONFIG_FILE.read_text() == before

    def test_a_file_that_is_broken_is_for_hands(self, staff, set_config):
        set_config("engine: [")

        response = staff.patch(CONFIG, {"engine": {"threads": 4}})

        assert (response.status_code, response.json()["code"]) == (409, "configuration_not_writable")


class TestCache:
    def test_says_how_the_file_and_the_cache_are(self, staff, settings):
        body = staff.get(CACHE).json()

        assert (body["cached"], body["file_exists"], body["cache_stale"]) == (True, True, False)
        assert body["config_path"] == str(settings.CONFIG_FILE)
        assert body["cached_mtime"] == body["file_mtime"] is not None
        assert body["problem"] == ""

    def test_knows_a_change_before_it_is_read(self, staff, settings):
        settings.CONFIG_FILE.write_text("engine: {threads: 5, idle_seconds: 77}")
        assert staff.get(CACHE).json()["cache_stale"]

        assert staff.post(RELOAD).json()["cache_stale"] is False
        assert config.get_config().engine.idle_seconds == 77

    def test_a_reload_reads_what_looks_unchanged(self, staff, settings, set_config):
        set_config("engine: {threads: 5}")
        found = settings.CONFIG_FILE.stat()
        settings.CONFIG_FILE.write_text("engine: {threads: 6}")
        os.utime(settings.CONFIG_FILE, ns=(found.st_atime_ns, found.st_mtime_ns))
        assert config.get_config().engine.threads == 5

        assert staff.post(RELOAD).status_code == 200
        assert config.get_config().engine.threads == 6
        assert AuditEntry.objects.filter(action="config.reload").exists()

    def test_a_reload_of_a_broken_file_says_so_and_keeps_the_last_good_one(self, staff, set_config):
        set_config("engine: {threads: 5}")
        set_config("engine: {threads: many}")

        response = staff.post(RELOAD)

        assert (response.status_code, response.json()["code"]) == (409, "configuration_broken")
        assert "engine.threads" in response.json()["detail"]
        assert staff.get(CONFIG).json()["engine"]["threads"] == 5


def test_another_process_may_change_the_file_meanwhile(settings):
    with editing(settings.CONFIG_FILE, {"engine": {"threads": 9}}) as edit:
        edit.write()

    assert config.get_config().engine.threads == 9
