"""The page that Prometheus reads, read by the parser of Prometheus' own client."""

import shutil
import subprocess
from dataclasses import asdict
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

import imagehub
from imagehub import counters, failover_cache
from imagehub.accounts.models import Scope
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus, QueuePause, WorkerPresence
from imagehub.jobs.tests.factories import ErrandFactory
from imagehub.operations import metrics, purges, tallies
from imagehub.operations.models import DiskAlert, DiskSnapshot, Purge, TallyMark
from imagehub.operations.tests.factories import DiskSnapshotFactory, file_system

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_page_from_before():
    cache.delete(metrics.PAGE_KEY)


def samples() -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the values on a new page, by the name of the sample."""
    cache.delete(metrics.PAGE_KEY)
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(metrics.page().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(name: str, **labels: str) -> float | None:
    """Return one value of a new page; None where it is not there."""
    values = [value for found, value in samples().get(f"imagehub_{name}", []) if found == labels]
    assert len(values) < 2
    return values[0] if values else None


class TestWhoMayRead:
    def answer(self, **headers: str):
        return APIClient().get("/metrics", headers=headers)

    def test_a_token_of_staff_opens_it(self):
        ApiTokenFactory(user=UserFactory(staff=True), secret="ih_prometheus", scopes=[Scope.READ])

        answer = self.answer(
            authorization="Bearer ih_prometheus",
            accept="application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
        )

        assert answer.status_code == 200
        assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert b"imagehub_build_info" in answer.content

    def test_strangers_and_users_are_refused_as_by_the_api(self):
        ApiTokenFactory(user=UserFactory(), secret="ih_visitor", scopes=[Scope.ADMIN])

        stranger, visitor = self.answer(), self.answer(authorization="Bearer ih_visitor")

        assert (stranger.status_code, visitor.status_code) == (401, 403)
        assert stranger["WWW-Authenticate"].startswith("Bearer")
        assert stranger["Content-Type"] == visitor["Content-Type"] == "application/problem+json"


class TestValues:
    def test_queues(self):
        ErrandFactory(queued_at=timezone.now() - timedelta(minutes=10))
        ErrandFactory()
        found = samples()

        assert ({"kind": "errand", "status": "queued"}, 2) in found["imagehub_queue_jobs"]
        assert 600 <= value("queue_oldest_age_seconds", kind="errand") < 660
        assert value("queue_paused", kind="errand") == 0

        QueuePause.objects.create(kind="errand")
        assert value("queue_paused", kind="errand") == 1

    def test_ended_jobs_outlive_their_rows(self):
        now = timezone.now()
        TallyMark.objects.create(kind="errand", until=now - timedelta(hours=1))
        ended = {"finished_at": now - timedelta(minutes=5), "started_at": now - timedelta(minutes=6)}
        ErrandFactory(status=JobStatus.COMPLETED, **ended)
        failed = ErrandFactory(status=JobStatus.FAILED, error_code="no_luck", **ended)

        assert value("jobs_ended_total", kind="errand", status="completed") == 1
        failed.delete()

        assert value("jobs_ended_total", kind="errand", status="failed") == 1
        assert value("jobs_ended_total", kind="errand", status="cancelled") == 0
        assert value("job_failures_total", kind="errand", code="no_luck") == 1
        assert value("job_duration_seconds_bucket", kind="errand", le="30") == 0
        assert value("job_duration_seconds_bucket", kind="errand", le="60") == 1
        assert value("job_duration_seconds_sum", kind="errand") == pytest.approx(60)

    def test_workers_and_what_their_engines_remember(self):
        presence.announce(Cluster.GENERATION)
        served = {"adapter_hits": 5, "adapter_loads": 2, "prompt_hits": 7}
        presence.publish({"engine": {"memory": {"hits": 41, "loads": 3, "served": served}}})
        row = WorkerPresence.objects.get()
        worker = {"host": row.host, "pid": str(row.pid)}

        assert value("workers_live", cluster="generation") == 1
        assert value("workers_live", cluster="training") == 0
        assert value("engine_cache_hits_total", cache="model", **worker) == 41
        assert value("engine_cache_loads_total", cache="adapter", **worker) == 2
        assert value("engine_cache_hits_total", cache="prompt", **worker) == 7

    def test_requests_and_refusals(self, client, set_config):
        set_config("rate_limits: {labeling: {limit: 1, window_seconds: 100}}")
        before = (
            value("http_requests_total", status="4xx"),
            value("rate_limit_rejections_total", group="labeling"),
        )

        client.get("/api/nothing")
        counters.add({"rejections:labeling": 3})

        assert value("http_requests_total", status="4xx") == before[0] + 1
        assert value("rate_limit_rejections_total", group="labeling") == before[1] + 3
        assert value("shared_cache_degraded") == 0

    def test_no_counter_falls_back_to_what_one_process_knows(self, monkeypatch):
        monkeypatch.setattr(failover_cache, "is_degraded", lambda: True)

        assert value("shared_cache_degraded") == 1
        assert value("http_requests_total", status="2xx") is None

    def test_the_last_look_at_the_disks_of_each_machine(self):
        now = timezone.now()

        def snapshot(host: str, hours: int, used: int) -> None:
            DiskSnapshot.objects.create(
                host=host,
                taken_at=now - timedelta(hours=hours),
                seconds=1,
                filesystems=[
                    asdict(
                        file_system(
                            used, name="/dev/vda1", total_bytes=100, used_bytes=used, free_bytes=100 - used
                        )
                    )
                ],
                usage={"media": {"originals": {"bytes": used, "files": 2}}},
            )

        snapshot("one", 6, 10), snapshot("one", 1, 86), snapshot("two", 3, 5), snapshot("gone", 24 * 8, 9)
        DiskAlert.objects.create(host="one", filesystem="/dev/vda1", percent_used=86, threshold_percent=85)
        place = {"host": "one", "filesystem": "/dev/vda1"}

        assert value("filesystem_used_bytes", **place) == 86
        assert value("filesystem_size_bytes", **place) == 100
        assert value("filesystem_free_bytes", host="two", filesystem="/dev/vda1") == 95
        assert value("storage_bytes", host="one", root="media", kind="originals") == 86
        assert value("storage_files", host="one", root="media", kind="originals") == 2
        assert value("disk_sample_timestamp_seconds", host="one") == pytest.approx(now.timestamp() - 3600)
        assert value("disk_sample_timestamp_seconds", host="gone") is None
        assert value("disk_alert", **place) == 1
        DiskAlert.objects.update(cleared_at=timezone.now())
        assert value("disk_alert", **place) is None

    def test_how_long_disks_last_and_how_often_they_should_be_looked_at(self, set_config):
        set_config("disk: {sample_hours: 12}\nstorage: {minimum_free_bytes: 0}")
        for place in range(8):
            DiskSnapshotFactory(host="one", ago=timedelta(hours=48 - 6 * place), used_percent=80 + place / 4)
        DiskSnapshotFactory(host="two")

        assert value("filesystem_days_left", host="one", filesystem="media, var") == pytest.approx(
            18.3, abs=0.2
        )
        assert value("filesystem_days_left", host="two", filesystem="media, var") is None
        assert value("disk_sample_interval_seconds") == 43200

    def test_the_last_purge_of_each_kind_that_was_no_rehearsal(self):
        kind = next(iter(purges.kinds())).name
        done = {"kind": kind, "origin": "clock", "older_than_days": 30, "state": Purge.State.DONE}
        at = timezone.now() - timedelta(hours=3)
        Purge.objects.create(**done, finished_at=at, result={"bytes": 12})
        Purge.objects.create(**done, finished_at=timezone.now(), result={"bytes": 99}, is_dry_run=True)

        assert value("purge_last_timestamp_seconds", kind=kind) == pytest.approx(at.timestamp())
        assert value("purge_last_freed_bytes", kind=kind) == 12
        assert value("purge_last_failed", kind=kind) == 0

    def test_what_breaks_one_part_takes_no_other_along(self, monkeypatch):
        def fail() -> None:
            raise RuntimeError("/srv/secret")

        monkeypatch.setattr(tallies, "read", fail)

        assert value("scrape_collector_success", collector="jobs") == 0
        assert value("scrape_collector_success", collector="queues") == 1
        assert value("build_info", version=imagehub.__version__) == 1


class TestCost:
    def test_a_page_is_made_once_however_many_ask(self):
        first = metrics.page()
        ErrandFactory()

        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert metrics.page() == first
        assert len(queries) == 0

    def test_the_number_of_queries_does_not_depend_on_that_of_jobs(self):
        def queries() -> int:
            cache.clear()
            with CaptureQueriesContext(connection) as found:
                metrics.page()
            return len(found)

        ErrandFactory()
        metrics.page()
        one = queries()
        for _ in range(5):
            ErrandFactory()

        assert queries() == one


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.once
def test_prometheus_own_linter_has_nothing_to_say():
    ended = {
        "finished_at": timezone.now() - timedelta(minutes=5),
        "started_at": timezone.now() - timedelta(minutes=6),
    }
    TallyMark.objects.create(kind="errand", until=timezone.now() - timedelta(hours=1))
    ErrandFactory(status=JobStatus.FAILED, error_code="no_luck", **ended)

    said = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.page(), capture_output=True, check=False
    )

    assert (said.returncode, said.stdout + said.stderr) == (0, b"")
