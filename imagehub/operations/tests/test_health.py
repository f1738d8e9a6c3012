import os
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import OperationalError
from django.db.backends.utils import CursorWrapper
from django.utils import timezone
from rest_framework.test import APIClient

from imagehub import failover_cache
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus, WorkerPresence
from imagehub.jobs.registry import get_kind, kinds
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def _workers():
    for cluster in {Cluster.DEFAULT} | {kind.cluster for kind in kinds()}:
        presence.announce(cluster)


def get(path: str, user=None):
    client = APIClient()
    if user:
        client.force_authenticate(user)
    return client.get(path)


@pytest.mark.usefixtures("_workers")
class TestWell:
    def test_health_counts_what_waits_and_runs(self):
        ErrandFactory()

        body = get("/api/health").json()

        assert (body["status"], body["degraded"]) == ("ok", [])
        assert body["queues"]["errand"] == {"queued": 1, "running": 0}
        assert "details" not in body

    def test_ready_answers_200(self):
        assert get("/api/health/ready").status_code == 200

    def test_a_full_disk_is_named(self, set_config):
        set_config("storage: {minimum_free_bytes: 999999999999999999}")

        assert get("/api/health").json()["degraded"] == ["storage"]
        assert get("/api/health/ready").status_code == 503

    def test_a_broken_configuration_is_named_and_explained_to_staff_alone(self, set_config):
        set_config("nonsense: true")

        assert get("/api/health").json()["degraded"] == ["configuration"]
        assert "details" not in get("/api/health", UserFactory()).json()
        assert get("/api/health/ready").status_code == 200
        details = get("/api/health", UserFactory(is_staff=True)).json()["details"]
        assert "last good one" in details["configuration"]

    def test_staff_alone_see_what_workers_say_of_themselves(self):
        WorkerPresence.objects.filter(cluster=Cluster.DEFAULT).update(facts={"models": ["starter"]})

        assert "workers" not in get("/api/health", UserFactory()).json()
        workers = get("/api/health", UserFactory(is_staff=True)).json()["workers"]
        assert {"models": ["starter"]} in [worker["facts"] for worker in workers]

    def test_a_cache_that_forgets_is_named(self, monkeypatch):
        monkeypatch.setattr(cache, "get", lambda *_: None)

        assert get("/api/health").json()["degraded"] == ["cache"]

    def test_a_shared_cache_that_is_replaced_is_named_and_stops_nothing(self, monkeypatch):
        monkeypatch.setattr(failover_cache, "is_degraded", lambda: True)

        assert get("/api/health").json()["degraded"] == ["cache"]
        assert get("/api/health/ready").status_code == 200
        details = get("/api/health", UserFactory(is_staff=True)).json()["details"]
        assert "does not answer" in details["cache"]

    def test_a_check_that_breaks_is_an_answer_and_no_error(self, monkeypatch):
        def broken(*_):
            raise ConnectionError("redis://secret@host")

        monkeypatch.setattr(cache, "set", broken)

        response = get("/api/health", UserFactory(is_staff=True))
        assert (response.status_code, response.json()["degraded"]) == (200, ["cache"])
        assert "secret" not in response.content.decode()

    def test_a_media_folder_that_cannot_be_made_is_named(self, settings, tmp_path):
        (tmp_path / "file").write_text("")
        settings.NAMED_ROOTS = {"media": tmp_path / "file" / "media"}

        assert get("/api/health").json()["degraded"] == ["storage"]
        assert get("/api/health/ready").status_code == 503

    def test_a_media_folder_that_cannot_be_written_is_named(self, monkeypatch):
        monkeypatch.setattr(os, "access", lambda *_: False)

        assert get("/api/health/ready").json()["degraded"] == ["storage"]

    def test_a_worker_that_went_silent_is_missing(self):
        WorkerPresence.objects.filter(cluster=Cluster.DEFAULT).update(
            seen_at=timezone.now() - timedelta(hours=1)
        )

        details = get("/api/health", UserFactory(staff=True)).json()["details"]

        assert details == {"workers": "No live worker: default."}

    @pytest.mark.parametrize("kind", [kind.name for kind in kinds()])
    def test_counts_match_the_tables(self, kind):
        owner = UserFactory()
        for status in JobStatus:
            if status != JobStatus.RUNNING:
                finished_at = timezone.now() if status in JobStatus.FINISHED else None
                ErrandFactory(owner=owner, status=status, finished_at=finished_at)
        ErrandFactory(owner=owner)
        Errand.objects.claim(worker="test")

        counts = get("/api/health").json()["queues"]

        assert counts.keys() == {kind.name for kind in kinds()}
        rows = get_kind(kind).model._default_manager
        assert counts[kind] == {
            "queued": rows.filter(status="queued").count(),
            "running": rows.filter(status="running").count(),
        }
        assert counts["errand"] == {"queued": 1, "running": 1}

    def test_without_a_database_there_is_an_answer_all_the_same(self, client, monkeypatch):
        client.force_login(UserFactory(staff=True))
        ApiTokenFactory(secret="ih_s3cret-s3cret")
        token = {"Authorization": "Bearer ih_s3cret-s3cret"}

        def gone(*_, **__):
            raise OperationalError("connection to db.internal refused")

        monkeypatch.setattr(CursorWrapper, "execute", gone)

        for response in (
            get("/api/health"),
            client.get("/api/health"),
            client.get("/api/health", headers=token),
        ):
            assert (response.status_code, response.json()["queues"]) == (200, {})
            assert response.json()["degraded"] == ["database", "disk", "workers"]
            assert "internal" not in response.content.decode()
        assert get("/api/health/ready").status_code == 503
        assert get("/api/health/live").status_code == 200


def test_a_missing_worker_makes_it_not_ready():
    response = get("/api/health/ready")

    assert (response.status_code, response.json()["degraded"]) == (503, ["workers"])


def test_live_says_nothing_about_what_is_behind():
    assert get("/api/health/live").json() == {"status": "ok"}
