"""Runs in the admin: what it shows, and what can be done there."""

import math
import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from albums.tests.factories import picture
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from training.admin import run_page
from training.admin.drawings import chart, sparkline
from training.models import Checkpoint, MetricPoint, Sample, TrainingRun
from training.services.run_folders import folder_of
from training.tests.factories import TrainingRunFactory
from training.tests.test_runs import write_checkpoint

pytestmark = pytest.mark.django_db

LIST = "/admin/training/trainingrun/"


@pytest.fixture
def staff():
    client = Client()
    client.force_login(UserFactory(staff=True))
    return client


def choose(client, action, *chosen):
    body = {"action": action, "_selected_action": [str(run.pk) for run in chosen]}
    return client.post(LIST, body, follow=True).content.decode()


def press(client, run, act, **fields):
    url = reverse("admin:training_trainingrun_act", args=[run.pk])
    return client.post(url, {"act": act} | fields, follow=True).content.decode()


def page_of(run):
    return reverse("admin:training_trainingrun_change", args=[run.pk])


def with_everything(**fields) -> TrainingRun:
    """A run of which there is something of everything to see."""
    run = TrainingRunFactory(training_loss=0.2, validation_loss=0.3, step=60, recipe={"steps": 100}, **fields)
    MetricPoint.objects.bulk_create(
        MetricPoint(run=run, kind="train", step=step, loss=0.2 + 0.8 / step + 0.05 * math.sin(step * 7))
        for step in range(1, 61)
    )
    for step in (0, 20, 40, 60):
        MetricPoint.objects.create(run=run, kind="validation", step=step, loss=0.9 - step / 100)
    folder = folder_of(run)
    folder.samples.mkdir(parents=True)
    for step in (20, 40, 60):
        write_checkpoint(run, step)
        Checkpoint.objects.create(
            run=run,
            step=step,
            sha256="0" * 64,
            size_bytes=150_000,
            validation_loss=0.9 - step / 100,
            is_best=step == 60,
        )
        for index, color in enumerate(("red", "green")):
            name = f"samples/step-{step:06d}-{index}.png"
            (folder.root / name).write_bytes(picture(color=color, size=(64, 64)))
            Sample.objects.create(
                run=run,
                step=step,
                index=index,
                prompt=f"a zebra, number {index}",
                seed=1,
                file_name=name,
                width=64,
                height=64,
            )
    folder.log.write_text("INFO Loading\nINFO Training\n")
    return run


def test_the_list_shows_how_runs_go(staff, django_assert_max_num_queries):
    with_everything(
        status=JobStatus.FAILED, finished_at=timezone.now(), error_code="x", error_detail="It failed."
    )
    TrainingRunFactory.create_batch(3)

    with django_assert_max_num_queries(18):
        html = staff.get(LIST).content.decode()

    assert "60 / 100" in html
    assert "It failed." in html
    assert 'class="sparkline"' in html


def test_the_page_of_a_run_shows_all_of_it(staff):
    run = with_everything()
    html = staff.get(page_of(run)).content.decode()

    assert 'class="chart"' in html
    assert html.count('/file"><img') == 6
    assert "INFO Training" in html
    assert "Make an adapter" in html
    assert "pictures to learn from" in html
    assert "style=" not in re.sub(r"<nav.*?</nav>", "", html, flags=re.S)


def test_runs_are_started_stopped_resumed_and_cloned(staff):
    run, other = TrainingRunFactory(), TrainingRunFactory()

    assert "is queued" in choose(staff, "start", run)
    assert "1 may be active at once" in choose(staff, "start", other)
    TrainingRun.objects.claim(worker="w")
    assert "is stopping, and saves" in choose(staff, "stop_and_save", run)
    run.refresh_from_db()
    assert (run.status, run.stop_mode) == (JobStatus.RUNNING, "save")
    press(staff, run, "cancel")
    run.refresh_from_db()
    assert run.stop_mode == "discard"
    TrainingRun.objects.filter(pk=run.pk).move(JobStatus.RUNNING, JobStatus.CANCELLED)
    assert "No sound checkpoint" in press(staff, run, "resume")
    write_checkpoint(run, 4)
    assert "is queued again" in press(staff, run, "resume")
    assert "pending" in press(staff, run, "clone")
    assert TrainingRun.objects.filter(cloned_from=run).count() == 1


def test_checkpoints_are_pinned_and_promoted(staff):
    run = with_everything()
    checkpoint = run.checkpoints.get(step=20)

    press(staff, run, "pin", checkpoint=checkpoint.pk)
    checkpoint.refresh_from_db()
    assert checkpoint.is_pinned
    press(staff, run, "unpin", checkpoint=checkpoint.pk)
    assert "in the making" in press(staff, run, "promote", checkpoint=checkpoint.pk)
    checkpoint.refresh_from_db()
    assert checkpoint.promotion == "waiting"


def test_every_act_is_recorded(staff):
    run = with_everything()
    press(staff, run, "start")
    press(staff, run, "pin", checkpoint=run.checkpoints.first().pk)

    actions = set(AuditEntry.objects.filter(via="admin").values_list("action", flat=True))
    assert {"trainingrun.start", "checkpoint.pin"} <= actions


@pytest.mark.parametrize("fields", [{"act": "explode"}, {"act": "pin"}, {"act": "pin", "checkpoint": "x"}])
def test_what_means_nothing_is_not_found(staff, fields):
    url = reverse("admin:training_trainingrun_act", args=[TrainingRunFactory().pk])

    assert staff.post(url, fields).status_code == 404


def test_only_staff_act():
    client = Client()
    client.force_login(UserFactory())
    run = TrainingRunFactory()

    client.post(reverse("admin:training_trainingrun_act", args=[run.pk]), {"act": "start"})
    run.refresh_from_db()
    assert run.status == JobStatus.PENDING


def test_a_course_is_drawn_from_left_to_right_and_high_values_up():
    drawn = sparkline([3.0, 2.0, 1.0])

    assert re.search(r'points="2\.0,2\.0 60\.0,14\.0 118\.0,26\.0"', drawn)
    assert sparkline([1.0]) == ""
    assert 'points="2.0,26.0' in sparkline([1.0, 1.0])


def test_a_chart_of_one_point_and_of_none():
    point = {"step": 1, "loss": 0.5, "loss_min": 0.5, "loss_max": 0.5}

    assert "<circle" in chart([point], [{"step": 0, "loss": 0.7}], total=10)
    assert chart([], [], total=10) == ""


class TestOpenPages:
    """A page that is left open asks for itself every few seconds."""

    def test_one_of_a_waiting_run_does_not_look_at_its_pictures_each_time(self, staff, monkeypatch):
        looks = []
        look = run_page.preflight_of_run
        monkeypatch.setattr(run_page, "preflight_of_run", lambda run: (looks.append(run), look(run))[1])
        run = TrainingRunFactory()

        pages = [staff.get(page_of(run)).content.decode() for _ in range(2)]

        assert len(looks) == 1
        assert all("pictures to learn from" in page for page in pages)

    def test_a_list_does_not_read_all_points_each_time(self, staff):
        run = with_everything(failed=True)
        points = 'FROM "training_metricpoint"'
        with CaptureQueriesContext(connection) as first:
            before = staff.get(LIST).content.decode()
        with CaptureQueriesContext(connection) as second:
            again = staff.get(LIST).content.decode()
        assert sum(points in query["sql"] for query in first) == 1
        assert not any(points in query["sql"] for query in second)
        assert before.count("<polyline") == again.count("<polyline") == 1

        MetricPoint.objects.create(run=run, kind="train", step=61, loss=9.5)
        TrainingRun.objects.update(step=61)
        assert "to 9.5" in staff.get(LIST).content.decode()
