"""Runs over the API: who is told what, and what is asked for how."""

import http.client
import json
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from albums.tests.factories import picture
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.jobs.lease import Lease
from imagehub.jobs.models import JobStatus
from training.models import Checkpoint, MetricPoint, Sample, TrainingRun
from training.services.run_folders import folder_of
from training.tests.factories import AdapterFactory, TrainingRunFactory, starter_model

pytestmark = pytest.mark.django_db

PUBLIC = {
    "id", "kind", "status", "name", "description", "progress", "step", "total_steps", "eta_seconds", "training_loss",
    "validation_loss", "created_at", "queued_at", "started_at", "finished_at", "duration_seconds",
}  # fmt: skip
FOR_STAFF = {
    "priority", "attempt", "message", "queue_position", "possible", "reason", "error", "owner", "base_loss", "base_model",
    "trigger_word", "config", "config_sha256", "dataset", "adapter", "cloned_from", "phase", "stop_mode", "resumes", "facts",
    "estimate", "dataset_path", "output_path", "log_path", "final_checkpoint", "purged_at",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _few_images(set_config):
    set_config("training: {minimum_images: 2}\nstorage: {minimum_free_bytes: 0}\n")


@pytest.fixture
def staff():
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    return client


@pytest.fixture
def visitor():
    client = APIClient()
    client.force_authenticate(UserFactory())
    return client


def ask_for(client, album, **fields):
    starter_model()
    return client.post(
        "/api/training", {"name": "zebras", "album_ids": [str(album.pk)]} | fields, format="json"
    )


class TestWhoIsToldWhat:
    @pytest.mark.parametrize("path", ["/api/training/{pk}", "/api/training"])
    def test_everybody_that_it_is_there_and_how_it_goes(self, visitor, path):
        run = TrainingRunFactory(failed=True, training_loss=0.5, error_code="x", error_detail="secret")

        for client in (APIClient(), visitor):
            answer = client.get(path.format(pk=run.pk)).json()
            told = answer["results"][0] if "results" in answer else answer
            assert set(told) == PUBLIC
            assert (told["name"], told["status"], told["training_loss"]) == (run.name, "failed", 0.5)
            for secret in (run.trigger_word, run.owner.username, run.owner.email, "secret", "runs/"):
                assert secret not in json.dumps(told)

    def test_staff_all_of_it(self, staff):
        run = TrainingRunFactory(failed=True, error_code="x", error_detail="It failed.")
        Checkpoint.objects.create(run=run, step=4, sha256="0" * 64, size_bytes=1)
        Checkpoint.objects.create(run=run, step=8, sha256="0" * 64, size_bytes=1)

        told = staff.get(f"/api/training/{run.pk}").json()

        assert set(told) == PUBLIC | FOR_STAFF
        folder = folder_of(run)
        assert told["error"] == {"code": "x", "detail": "It failed."}
        assert told["output_path"] == str(folder.root)
        assert told["dataset_path"] == str(folder.images)
        assert told["log_path"] == str(folder.log)
        assert told["final_checkpoint"] == str(folder.checkpoints / "step-000008")
        assert told["config"]["steps"] == 10
        assert (told["trigger_word"], told["base_model"]) == (run.trigger_word, "starter")
        assert told["dataset"]["sha256"] == run.dataset.sha256

    def test_a_list_costs_the_same_however_long_it_is(self, staff, django_assert_max_num_queries):
        TrainingRunFactory.create_batch(2, failed=True)
        staff.get("/api/training")
        TrainingRunFactory.create_batch(4, failed=True)
        with django_assert_max_num_queries(6):
            staff.get("/api/training")

    def test_a_list_can_be_of_one_status(self, staff):
        TrainingRunFactory()
        failed = TrainingRunFactory(failed=True)

        answer = staff.get("/api/training?status=failed").json()

        assert [run["id"] for run in answer["results"]] == [str(failed.pk)]

    @pytest.mark.parametrize("path", ["logs", "samples", "checkpoints", "events"])
    def test_what_shows_what_it_learns_is_for_staff(self, visitor, path):
        run = TrainingRunFactory()

        assert APIClient().get(f"/api/training/{run.pk}/{path}").status_code == 401
        assert visitor.get(f"/api/training/{run.pk}/{path}").status_code == 403


class TestLife:
    def test_from_pending_to_running_to_stopping(self, staff, album):
        created = ask_for(staff, album, config={"steps": 60}, trigger_word="zbr", description="Stripes")
        run = created.json()
        url = f"/api/training/{run['id']}"

        assert created.status_code == 201
        assert created.headers["Location"] == url
        assert (run["status"], run["total_steps"], run["description"]) == ("pending", 60, "Stripes")

        started = staff.post(f"{url}/start")
        assert (started.status_code, started.json()["status"]) == (200, "queued")
        assert started.headers["RateLimit-Remaining"] == "3"

        TrainingRun.objects.claim(worker="w")
        stopping = staff.post(f"{url}/cancel", {"mode": "discard"}, format="json")
        assert (stopping.status_code, stopping.json()["stop_mode"]) == (202, "discard")

    def test_a_waiting_one_ends_at_once(self, staff):
        run = TrainingRunFactory(queued=True)

        answer = staff.post(f"/api/training/{run.pk}/cancel")

        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert staff.post(f"/api/training/{run.pk}/cancel").json()["code"] == "already_finished"

    def test_beyond_the_limit_of_active_runs_nothing_is_charged(self, staff):
        first, second = TrainingRunFactory.create_batch(2)
        staff.post(f"/api/training/{first.pk}/start")

        refused = staff.post(f"/api/training/{second.pk}/start")

        assert (refused.status_code, refused.json()["code"]) == (429, "concurrency_limit")
        assert int(refused.headers["Retry-After"]) >= 1
        staff.post(f"/api/training/{first.pk}/cancel")
        assert staff.post(f"/api/training/{second.pk}/start").headers["RateLimit-Remaining"] == "2"

    def test_what_is_refused_for_its_rate_was_not_started(self, staff, set_config):
        set_config(
            "training: {max_active: 5}\nrate_limits: {training_start: {limit: 1, window_seconds: 3600}}"
        )
        first, second = TrainingRunFactory.create_batch(2)
        staff.post(f"/api/training/{first.pk}/start")

        refused = staff.post(f"/api/training/{second.pk}/start")

        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        second.refresh_from_db()
        assert second.status == JobStatus.PENDING
        assert not AuditEntry.objects.filter(action="trainingrun.start", target_id=str(second.pk)).exists()

    def test_state_goes_before_limits(self, staff):
        run = TrainingRunFactory(queued=True)

        assert staff.post(f"/api/training/{run.pk}/start").json()["code"] == "not_pending"
        assert staff.post(f"/api/training/{run.pk}/resume").json()["code"] == "not_resumable"

    def test_a_clone_is_a_new_run(self, staff):
        run = TrainingRunFactory(failed=True)

        answer = staff.post(f"/api/training/{run.pk}/clone", {"name": "again"}, format="json")

        assert answer.status_code == 201
        assert (answer.json()["cloned_from"], answer.json()["name"]) == (str(run.pk), "again")

    def test_who_did_it_is_recorded(self, staff):
        run = TrainingRunFactory()
        staff.post(f"/api/training/{run.pk}/start")
        staff.post(f"/api/training/{run.pk}/cancel")

        actions = AuditEntry.objects.filter(target_id=str(run.pk)).order_by("id")
        assert list(actions.values_list("action", flat=True)) == ["trainingrun.start", "trainingrun.cancel"]

    @pytest.mark.parametrize(
        ("change", "pointer", "code"),
        [
            ({"album_ids": []}, "/album_ids", None),
            ({"album_ids": "12"}, "/album_ids", "not_a_list"),
            ({"album_ids": ["12"]}, "/album_ids/0", "invalid"),
            ({"config": {"rank": 0}}, "/config/rank", "invalid"),
            ({"config": {"colour": 1}}, "/config/colour", "unknown_field"),
            ({"config": []}, "/config", "invalid"),
            ({"name": ""}, "/name", "blank"),
            ({"base_model": "nothing"}, "/base_model", "does_not_exist"),
            ({"colour": 1}, "/colour", "unknown_field"),
        ],
    )
    def test_what_is_wrong_is_pointed_at(self, staff, album, change, pointer, code):
        answer = ask_for(staff, album, **change)

        assert answer.status_code == 400
        errors = {error["pointer"]: error["code"] for error in answer.json()["errors"]}
        assert pointer in errors
        assert code is None or errors[pointer] == code

    def test_an_album_named_twice_is_pointed_at(self, staff, album):
        answer = ask_for(staff, album, album_ids=[str(album.pk), str(album.pk)])

        assert answer.json()["errors"][0]["pointer"] == "/album_ids/1"

    def test_too_few_captions_are_422(self, staff, album, set_config):
        set_config("training: {minimum_images: 3}")

        answer = ask_for(staff, album)
        assert (answer.status_code, answer.json()["code"]) == (422, "not_enough_images")


class TestMetrics:
    @pytest.fixture
    def run(self):
        run = TrainingRunFactory()
        MetricPoint.objects.bulk_create(
            MetricPoint(run=run, kind="train", step=step, loss=1 / step, learning_rate=1e-4)
            for step in range(1, 1001)
        )
        MetricPoint.objects.create(run=run, kind="validation", step=0, loss=2)
        return run

    def test_are_thinned_out_to_as_many_points_as_are_asked_for(self, staff, run):
        curve = staff.get(f"/api/training/{run.pk}/metrics?points=10").json()["train"]

        assert [point["step"] for point in curve] == list(range(100, 1001, 100))
        assert (curve[0]["loss_min"], curve[0]["loss_max"]) == (0.01, 1.0)
        assert curve[0]["loss"] == pytest.approx(sum(1 / step for step in range(1, 101)) / 100)
        assert curve[0]["learning_rate"] == pytest.approx(1e-4)

    def test_begin_behind_a_step(self, staff, run):
        answer = staff.get(f"/api/training/{run.pk}/metrics?since=998").json()

        assert [(point["step"], point["loss"]) for point in answer["train"]] == [
            (999, 1 / 999),
            (1000, 1 / 1000),
        ]
        assert answer["validation"] == []

    def test_tell_the_public_losses_alone(self, run):
        answer = APIClient().get(f"/api/training/{run.pk}/metrics?points=2").json()

        assert set(answer["train"][0]) == {"step", "loss", "loss_min", "loss_max"}
        assert answer["validation"] == [{"step": 0, "loss": 2}]

    @pytest.mark.parametrize("query", ["points=0", "points=2001", "points=x", "since=-2", "colour=1"])
    def test_refuse_what_makes_no_sense(self, staff, run, query):
        assert staff.get(f"/api/training/{run.pk}/metrics?{query}").status_code == 400


class TestLogs:
    def test_tell_the_last_lines(self, staff):
        run = TrainingRunFactory()
        log = folder_of(run).log
        log.parent.mkdir(parents=True)
        log.with_name("run.log.1").write_text("first\nsecond\n")
        log.write_text("third\nfourth\n")

        url = f"/api/training/{run.pk}/logs"
        assert staff.get(f"{url}?tail=1").json()["lines"] == ["fourth"]
        assert staff.get(f"{url}?tail=3").json()["lines"] == ["second", "third", "fourth"]

    def test_are_empty_before_it_has_run(self, staff):
        assert staff.get(f"/api/training/{TrainingRunFactory().pk}/logs").json()["lines"] == []


class TestSamples:
    def test_are_listed_and_downloaded(self, staff):
        run = TrainingRunFactory()
        folder = folder_of(run)
        folder.samples.mkdir(parents=True)
        (folder.samples / "a.png").write_bytes(picture())
        sample = Sample.objects.create(
            run=run, step=4, index=0, prompt="a zebra", seed=1, file_name="samples/a.png", width=8, height=8
        )

        [told] = staff.get(f"/api/training/{run.pk}/samples").json()["results"]
        answer = staff.get(told["file_url"])

        assert told["id"] == str(sample.pk)
        assert b"".join(answer.streaming_content) == picture()
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Cache-Control"] == "private, no-cache"

    def test_never_lead_out_of_the_folder_of_the_run(self, staff, tmp_path):
        run = TrainingRunFactory()
        folder_of(run).root.mkdir(parents=True)
        (tmp_path / "secret.png").write_bytes(b"secret")
        names = ["../../../secret.png", str(tmp_path / "secret.png"), "samples"]
        for index, name in enumerate(names):
            sample = Sample.objects.create(
                run=run, step=4, index=index, prompt="a", seed=1, file_name=name, width=8, height=8
            )
            assert staff.get(f"/api/training/{run.pk}/samples/{sample.pk}/file").status_code == 404


class TestAdapters:
    def test_the_public_is_told_of_enabled_ones_without_a_path(self):
        run = TrainingRunFactory(failed=True, training_loss=0.25)
        shown = AdapterFactory(training_run=run, trigger_words=["zbr"])
        AdapterFactory(training_run=run, is_enabled=False)
        AdapterFactory()

        [told] = APIClient().get("/api/training/loras").json()["results"]

        assert told == {
            "id": str(shown.pk), "name": shown.name, "size_bytes": shown.size_bytes, "training_run": str(run.pk),
            "training_loss": 0.25, "validation_loss": None, "trigger_word": "zbr", "created_at": told["created_at"],
        }  # fmt: skip

    def test_staff_download_the_file(self, staff):
        run = TrainingRunFactory()
        adapter = AdapterFactory(training_run=run, on_disk=True, name="zebras/../x")

        [told] = staff.get("/api/training/loras").json()["results"]
        answer = staff.get(told["download_url"])

        assert told["path"].endswith(adapter.source)
        assert len(b"".join(answer.streaming_content)) == adapter.size_bytes
        assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
        assert "/" not in answer.headers["Content-Disposition"]
        assert APIClient().get(told["download_url"]).status_code == 401

    def test_one_whose_file_is_gone_is_422(self, staff):
        adapter = AdapterFactory(training_run=TrainingRunFactory())

        answer = staff.get(f"/api/training/loras/{adapter.pk}/download")
        assert (answer.status_code, answer.json()["code"]) == (422, "adapter_missing")


def test_figures_of_all_runs():
    TrainingRunFactory()
    TrainingRunFactory(failed=True)
    for _ in range(3):
        TrainingRunFactory(failed=True, status=JobStatus.COMPLETED)

    told = APIClient().get("/api/training/stats").json()

    assert (told["total_runs"], told["pending_runs"], told["completed_runs"]) == (5, 1, 3)
    assert told["success_rate"] == 75.0


def test_the_schema_of_recipes_names_bounds_and_presets():
    told = APIClient().get("/api/training/recipe-schema").json()

    assert told["schema"]["properties"]["rank"]["minimum"] == 1
    assert told["bounds"]["steps"] == {"minimum": 10, "maximum": 10_000}
    assert set(told["presets"]) == {"person", "style", "concept"}


@pytest.mark.parametrize("name", ["person", "style", "concept"])
def test_every_preset_is_a_recipe(name):
    from training.presets import PRESETS
    from training.services.recipes import resolve_recipe

    assert resolve_recipe(PRESETS[name], starter_model()).steps == PRESETS[name]["steps"]


def test_events_are_streamed_for_staff(staff):
    run = TrainingRunFactory(failed=True)

    answer = staff.get(f"/api/training/{run.pk}/events", headers={"Accept": "text/event-stream"})

    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert b'"status":"failed"' in answer.content


@pytest.mark.django_db(transaction=True)
def test_the_shipped_server_streams_the_events_of_a_run_until_it_ends(server):
    ApiTokenFactory(user=UserFactory(staff=True), scopes=["train"], secret="ih_events")
    TrainingRunFactory(queued=True)
    run = TrainingRun.objects.claim(worker="w")
    client = http.client.HTTPConnection(urlsplit(server[0]).netloc, timeout=20)
    headers = {"Authorization": "Bearer ih_events", "Accept": "text/event-stream"}
    client.request("GET", f"/api/training/{run.pk}/events", headers=headers)
    answer = client.getresponse()
    assert answer.status == 200
    for line in answer:
        if b'"status":"running"' in line:
            break

    Lease(run).complete(adapter=AdapterFactory())

    assert b'"status":"completed"' in answer.read()
    client.close()


def test_a_list_reads_one_step_of_each_run_and_not_its_checkpoints(staff):
    for _ in range(2):
        run = TrainingRunFactory(failed=True)
        for step in range(1, 40):
            Checkpoint.objects.create(run=run, step=step, sha256="0" * 64, size_bytes=1)

    with CaptureQueriesContext(connection) as queries:
        answer = staff.get("/api/training").json()

    [asked] = [query["sql"] for query in queries if '"training_checkpoint"' in query["sql"]]
    assert "MAX" in asked
    assert "GROUP BY" in asked
    assert [row["final_checkpoint"][-11:] for row in answer["results"]] == ["step-000039"] * 2
