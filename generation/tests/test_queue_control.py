"""What people may do with the queue: put jobs first, cancel many, try again, pause; and what it tells them."""

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from albums.models import Image
from albums.tests.factories import ImageFactory
from generation.models import GenerationJob, SetRun
from generation.tests.factories import GenerationJobFactory, starter_model
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs import live, presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import Audience, JobStatus, QueuePause, WorkerPresence
from training.models import Adapter, BaseModel
from training.services import update_adapter

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh():
    cache.clear()
    starter_model()


@pytest.fixture
def user():
    return UserFactory(staff=True)


@pytest.fixture
def staff(user):
    client = APIClient()
    client.force_authenticate(user)
    return client


def queued(**fields) -> GenerationJob:
    return GenerationJobFactory(status=JobStatus.QUEUED, queued_at=timezone.now(), **fields)


def failed(**fields) -> GenerationJob:
    now = timezone.now()
    return GenerationJobFactory(
        status=JobStatus.FAILED, queued_at=now, started_at=now, finished_at=now, attempt=1, **fields
    )


def completed(seconds: float, **fields) -> GenerationJob:
    now = timezone.now()
    return GenerationJobFactory(
        status=JobStatus.COMPLETED,
        attempt=1,
        started_at=now - timedelta(seconds=seconds),
        finished_at=now,
        **fields,
    )


def other_model(**fields) -> BaseModel:
    return BaseModel.objects.create(name="other", kind=BaseModel.Kind.FOLDER, source="other", **fields)


class TestPriority:
    def test_a_job_that_is_put_first_is_claimed_first(self, staff, user):
        queued(owner=user)
        late = queued(owner=user)

        response = staff.patch(f"/api/jobs/{late.pk}", {"priority": 100})

        assert (response.status_code, response.json()["priority"]) == (200, 100)
        assert response.json()["queue_position"] == 1
        assert GenerationJob.objects.claim(worker="w").pk == late.pk
        assert AuditEntry.objects.get(action="generationjob.prioritise").after == {"priority": 100}

    @pytest.mark.parametrize("value", [101, -101, "5", True, 1.5, None])
    def test_anything_beyond_a_hundred_is_refused(self, staff, value):
        response = staff.patch(f"/api/jobs/{queued().pk}", {"priority": value}, format="json")

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/priority")

    def test_nothing_else_of_a_job_can_be_changed(self, staff):
        response = staff.patch(f"/api/jobs/{queued().pk}", {"priority": 1, "prompt": "another"})

        assert response.json()["errors"][0]["pointer"] == "/prompt"

    def test_a_finished_job_has_no_place_to_change(self, staff):
        response = staff.patch(f"/api/jobs/{failed().pk}", {"priority": 1})

        assert (response.status_code, response.json()["code"]) == (409, "already_finished")


class TestCancelMany:
    def cancel(self, staff, **body):
        return staff.post("/api/jobs/cancel", body, format="json")

    def test_cancels_what_waits_and_asks_what_runs_to_stop(self, staff, user):
        jobs = [queued(owner=user) for _ in range(3)]
        others = queued()
        GenerationJob.objects.filter(pk=jobs[0].pk).update(priority=1)
        GenerationJob.objects.claim(worker="w")

        response = self.cancel(staff, owner=user.username)

        assert (response.status_code, response.json()) == (200, {"cancelled": 2, "stopping": 1})
        assert GenerationJob.objects.filter(status=JobStatus.CANCELLED).count() == 2
        assert GenerationJob.objects.get(status=JobStatus.RUNNING).cancel_requested_at is not None
        others.refresh_from_db()
        assert others.status == JobStatus.QUEUED
        assert AuditEntry.objects.get(action="generationjob.cancel_many").after["jobs"] == 3

    def test_all_that_is_said_has_to_apply(self, staff):
        model = other_model()
        one, *_ = queued(base_model=model), queued(), failed(base_model=model)

        body = {"base_model": "other", "status": "queued"}

        assert self.cancel(staff, **body).json() == {"cancelled": 1, "stopping": 0}
        one.refresh_from_db()
        assert one.status == JobStatus.CANCELLED

    def test_a_set_run_is_cancelled_as_a_whole(self, staff, user):
        run = SetRun.objects.create(owner=user, theme="x", total=2)
        for index in range(2):
            queued(set_run=run, set_index=index)
        queued()

        assert self.cancel(staff, set_run=str(run.pk)).json()["cancelled"] == 2

    def test_ids_have_to_be_there(self, staff):
        there = str(queued().pk)
        unknown = "01a21386-adbe-72a8-9f07-d0491dcffc9c"

        response = self.cancel(staff, ids=[there, unknown])

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/ids/1")
        assert self.cancel(staff, ids=[there]).json()["cancelled"] == 1
        assert self.cancel(staff, ids=[there]).json() == {"cancelled": 0, "stopping": 0}

    @pytest.mark.parametrize(
        "body",
        [{}, {"ids": []}, {"ids": "x"}, {"status": "completed"}, {"owner": "nobody"}, {"all": True}],
    )
    def test_nothing_is_cancelled_by_mistake(self, staff, body):
        job = queued()

        assert self.cancel(staff, **body).status_code == 400
        job.refresh_from_db()
        assert job.status == JobStatus.QUEUED


class TestRetry:
    def retry(self, staff, job):
        return staff.post(f"/api/jobs/{job.pk}/retry")

    def test_makes_a_new_job_of_the_same_parameters(self, staff, user):
        run = SetRun.objects.create(owner=user, theme="x", total=1)
        lost = failed(
            seed=99, n=2, steps=7, priority=3, name="ace", set_run=run, set_index=0, scheduler="ddim"
        )

        response = self.retry(staff, lost)

        again = GenerationJob.objects.get(pk=response.json()["id"])
        assert response.status_code == 201
        assert response["Location"] == f"/api/jobs/{again.pk}"
        for name in (
            "prompt",
            "negative_prompt",
            "seed",
            "n",
            "steps",
            "priority",
            "name",
            "set_run",
            "set_index",
        ):
            assert getattr(again, name) == getattr(lost, name)
        assert (again.status, again.attempt, again.retry_of, again.owner) == (JobStatus.QUEUED, 0, lost, user)
        assert again.created_at > lost.created_at
        assert AuditEntry.objects.get(action="generationjob.create").after["retry_of"] == str(lost.pk)

    def test_a_retry_can_be_tried_again(self, staff):
        first = GenerationJob.objects.get(pk=self.retry(staff, failed()).json()["id"])
        first.__class__.objects.filter(pk=first.pk).request_cancel()

        second = GenerationJob.objects.get(pk=self.retry(staff, first).json()["id"])

        assert (second.retry_of, second.retry_of.retry_of.status) == (first, JobStatus.FAILED)

    def test_what_waits_or_is_done_cannot_be_tried_again(self, staff):
        for job in (queued(), completed(1)):
            response = self.retry(staff, job)
            assert (response.status_code, response.json()["code"]) == (409, "not_retryable")

    def test_says_what_has_gone_since(self, staff):
        adapter = {"id": "01a21386-adbe-72a8-9f07-d0491dcffc9c", "name": "ink", "weight": 1.0}

        assert self.retry(staff, failed(loras=[adapter])).json()["code"] == "adapter_missing"
        assert self.retry(staff, failed(strength=0.5)).json()["code"] == "image_gone"
        disabled = failed(base_model=other_model(is_enabled=False))
        assert (self.retry(staff, disabled).status_code, GenerationJob.objects.queued().count()) == (422, 0)

    def test_counts_like_a_request_for_pictures(self, staff):
        assert self.retry(staff, failed(n=8))["RateLimit-Remaining"] == "2"

        response = self.retry(staff, failed(n=3))

        assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
        assert GenerationJob.objects.queued().count() == 1


class TestPause:
    def test_nothing_is_claimed_while_paused_and_what_runs_goes_on(self, staff):
        queued()
        running = GenerationJob.objects.claim(worker="w")
        waiting = queued()

        response = staff.post(
            "/api/queue/pause", {"kind": "generation", "reason": "new disks"}, format="json"
        )

        [queue] = response.json()["queues"]
        assert (queue["queued"], queue["running"], queue["paused"]["reason"]) == (1, 1, "new disks")
        assert GenerationJob.objects.claim(worker="w") is None
        assert GenerationJob.objects.get(pk=running.pk).status == JobStatus.RUNNING
        presence.announce(Cluster.GENERATION)
        job = staff.get(f"/api/jobs/{waiting.pk}").json()
        assert (job["possible"], job["reason"]) == (False, "The queue is paused: new disks")

        staff.post("/api/queue/resume", {"kind": "generation"}, format="json")

        assert GenerationJob.objects.claim(worker="w").pk == waiting.pk
        recorded = AuditEntry.objects.filter(action__startswith="queue").order_by("at")
        assert [entry.action for entry in recorded] == ["queue.pause", "queue.resume"]

    def test_resuming_rings_the_doorbell(self, staff, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks() as callbacks:
            staff.post("/api/queue/resume", {"kind": "generation"}, format="json")

        assert len(callbacks) == 1

    def test_without_a_kind_all_are_meant(self, staff):
        staff.post("/api/queue/pause")
        assert set(QueuePause.objects.values_list("kind", flat=True)) >= {"generation", "errand"}

        staff.post("/api/queue/resume")
        assert not QueuePause.objects.exists()

    def test_a_reason_that_no_database_keeps_is_refused_or_cleaned(self, staff, user):
        response = staff.post("/api/queue/pause", {"reason": "new\0disks"}, format="json")

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/reason")
        assert not QueuePause.objects.exists()

        admin = Client()
        admin.force_login(user)
        page = admin.post("/admin/generation/generationjob/pause/", {"reason": "new\0 disks"}, follow=True)
        assert page.status_code == 200
        assert QueuePause.objects.get(kind="generation").reason == "new disks"

    def test_an_unknown_kind_is_refused(self, staff):
        response = staff.post("/api/queue/pause", {"kind": "genaration"}, format="json")

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/kind")


class TestStatus:
    def test_the_queue_tells_how_it_stands(self, staff, django_assert_max_num_queries):
        presence.announce(Cluster.GENERATION)
        for _ in range(3):
            completed(4)
        for _ in range(5):
            queued()

        with django_assert_max_num_queries(22):
            queues = staff.get("/api/queue").json()["queues"]

        queue = next(queue for queue in queues if queue["kind"] == "generation")
        assert (queue["queued"], queue["running"], queue["workers"], queue["paused"]) == (5, 0, 1, None)
        assert queue["rate_per_minute"] == 0.3
        assert queue["eta_seconds"] == pytest.approx(20, abs=0.5)
        assert 0 <= queue["oldest_age_seconds"] < 60

    def test_the_rate_is_that_of_the_jobs_which_ended_last_however_old_they_are(self, staff, monkeypatch):
        monkeypatch.setattr("imagehub.operations.queues.RATE_JOBS", 2)
        for _ in range(3):  # made last, and ended long ago
            done = completed(1)
            GenerationJob.objects.filter(pk=done.pk).update(finished_at=timezone.now() - timedelta(hours=1))
        GenerationJob.objects.filter(pk=completed(1).pk).update(
            created_at=timezone.now() - timedelta(hours=2), finished_at=timezone.now() - timedelta(minutes=1)
        )

        [queue] = [
            queue for queue in staff.get("/api/queue").json()["queues"] if queue["kind"] == "generation"
        ]

        assert queue["rate_per_minute"] == 0.1

    @pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL plans by what is in the table")
    def test_the_rate_is_read_from_the_end_of_what_has_ended(self, staff):
        with CaptureQueriesContext(connection) as captured:
            staff.get("/api/queue")

        [sql] = [
            query["sql"] for query in captured if '"generation_generationjob"."finished_at" >' in query["sql"]
        ]
        with connection.cursor() as cursor:
            plan = str(cursor.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall())
        assert "generationjob_ended" in plan
        assert "TEMP B-TREE" not in plan

    def test_waiting_jobs_tell_when_they_will_be_done(self, staff, user):
        presence.announce(Cluster.GENERATION)
        for seconds in (2, 2, 2, 2, 500):  # one had to load the model
            completed(seconds)
        first, second = queued(owner=user), queued(owner=user, n=2)

        etas = [staff.get(f"/api/jobs/{job.pk}").json()["eta_seconds"] for job in (first, second)]

        # The mean of those that wait stands for the one before it.
        assert etas == [pytest.approx(2, abs=0.1), pytest.approx(3 + 4, abs=0.1)]

    def test_without_a_measurement_nothing_is_promised(self, staff):
        presence.announce(Cluster.GENERATION)

        assert staff.get(f"/api/jobs/{queued().pk}").json()["eta_seconds"] is None

    def test_models_are_measured_each_by_itself(self, staff):
        presence.announce(Cluster.GENERATION)
        completed(2)
        waiting = queued(base_model=other_model())

        assert staff.get(f"/api/jobs/{waiting.pk}").json()["eta_seconds"] is None

    @pytest.mark.parametrize(
        ("obstacle", "reason"),
        [
            ({"is_enabled": False}, "is disabled"),
            ({"problem": "It has no weights."}, "cannot be used: It has no weights."),
        ],
    )
    def test_a_model_that_cannot_be_used_is_told(self, staff, obstacle, reason):
        presence.announce(Cluster.GENERATION)
        job = staff.get(f"/api/jobs/{queued(base_model=other_model(**obstacle)).pk}").json()

        assert job["possible"] is False
        assert reason in job["reason"]

    def test_an_adapter_that_is_disabled_or_gone_is_told(self, staff):
        presence.announce(Cluster.GENERATION)
        adapter = Adapter.objects.create(
            name="ink",
            source="a.safetensors",
            sha256="0" * 64,
            size_bytes=1,
            architecture="sd1",
            layout="peft",
        )
        job = queued(loras=[{"id": str(adapter.pk), "name": "ink", "weight": 1.0}])
        assert staff.get(f"/api/jobs/{job.pk}").json()["possible"] is True

        update_adapter(adapter, is_enabled=False)
        assert staff.get(f"/api/jobs/{job.pk}").json()["reason"] == "The adapter “ink” is disabled."

        adapter.delete()
        assert staff.get(f"/api/jobs/{job.pk}").json()["reason"] == "The adapter “ink” has been deleted."

    def test_a_model_that_no_worker_has_is_told(self, staff):
        presence.announce(Cluster.GENERATION)
        job = queued()
        assert staff.get(f"/api/jobs/{job.pk}").json()["possible"] is True

        WorkerPresence.objects.update(facts={"models": ["another"]})
        assert "No live worker has the base model" in staff.get(f"/api/jobs/{job.pk}").json()["reason"]

        WorkerPresence.objects.update(facts={"models": ["starter", "another"]})
        assert staff.get(f"/api/jobs/{job.pk}").json()["possible"] is True

    def test_what_the_workers_have_counts_and_not_what_this_machine_has(self, staff):
        presence.announce(Cluster.GENERATION)
        model = other_model(problem="Its weights are not on this machine.")
        job = queued(base_model=model)
        assert staff.get(f"/api/jobs/{job.pk}").json()["possible"] is False

        WorkerPresence.objects.update(facts={"models": ["other"]})
        assert staff.get(f"/api/jobs/{job.pk}").json()["possible"] is True

        presence.announce(Cluster.GENERATION)  # another one, which has not said anything yet
        assert staff.get(f"/api/jobs/{job.pk}").json()["possible"] is True

        WorkerPresence.objects.filter(facts={"models": ["other"]}).delete()
        assert "cannot be used: Its weights" in staff.get(f"/api/jobs/{job.pk}").json()["reason"]

    def test_who_polls_sees_the_preview_too(self, staff):
        queued()
        job = GenerationJob.objects.claim(worker="w")
        assert staff.get(f"/api/jobs/{job.pk}").json()["preview"] is None
        Audience.objects.filter(job=job.pk).update(step=3, preview=b"\xff\xd8", token=job.token)

        preview = staff.get(f"/api/jobs/{job.pk}").json()["preview"]

        assert preview == {"step": 3, "image": "data:image/jpeg;base64,/9g="}
        assert live.is_watched(job.pk)

    def test_a_page_of_jobs_costs_a_fixed_number_of_queries(self, staff, django_assert_max_num_queries):
        presence.announce(Cluster.GENERATION)
        completed(1)
        for number in range(20):
            job = queued()
            ImageFactory(source_kind=Image.SourceKind.GENERATION, source_id=job.pk, source_index=number)

        with django_assert_max_num_queries(15):
            staff.get("/api/jobs?limit=20")


class TestPrivacy:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("get", "/api/jobs"),
            ("get", "/api/jobs/{}"),
            ("patch", "/api/jobs/{}"),
            ("get", "/api/jobs/{}/events"),
            ("post", "/api/jobs/{}/retry"),
            ("post", "/api/jobs/cancel"),
            ("get", "/api/queue"),
            ("post", "/api/queue/pause"),
            ("post", "/api/queue/resume"),
        ],
    )
    def test_whoever_is_not_staff_sees_nothing_of_the_queue_not_even_his_own(self, method, path):
        visitor = UserFactory()
        job = queued(owner=visitor, prompt="a violet zeppelin")
        client = APIClient()
        anonymous = getattr(client, method)(path.format(job.pk))
        client.force_authenticate(visitor)
        signed_in = getattr(client, method)(path.format(job.pk))

        assert (anonymous.status_code, signed_in.status_code) == (401, 403)
        assert b"zeppelin" not in anonymous.content + signed_in.content
