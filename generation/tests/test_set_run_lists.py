"""Lists of set runs cost what is on the page, and not all that was ever made."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from generation import services
from generation.models import GenerationJob, SetRun
from generation.services import set_runs
from generation.tests.decks import THEME, make_deck, many_rows
from generation.tests.factories import GenerationJobFactory, starter_model
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner():
    starter_model()
    return UserFactory(staff=True)


@pytest.fixture
def submit(owner):
    def make(rows=3) -> SetRun:
        run = SetRun(owner=owner, template=make_deck(rows=many_rows(rows)), theme=THEME)
        return services.submit_set_run(run, GenerationJobFactory.build(owner=owner))[0]

    return make


def end(run, status=JobStatus.COMPLETED) -> None:
    now = timezone.now()
    active = GenerationJob.objects.filter(set_run=run).active()
    active.update(status=status, started_at=now, finished_at=now)


def listed(client) -> tuple[list[str], list[str]]:
    """Return the statuses of the runs in the list, and which queries looked at jobs."""
    with CaptureQueriesContext(connection) as captured:
        response = client.get("/api/set-runs?limit=200")
    assert response.status_code == 200
    looks = [query["sql"] for query in captured if "generation_generationjob" in query["sql"]]
    return [run["status"] for run in response.json()["results"]], looks


def test_the_jobs_of_runs_that_have_ended_are_counted_once(staff, submit):
    large = submit(10_000)
    end(large)
    for _ in range(20):
        end(submit())
    first, looks = listed(staff)
    assert len(looks) == 1

    again, looks = listed(staff)

    assert first == again == ["completed"] * 21
    assert looks == []
    shown = staff.get(f"/api/set-runs/{large.pk}").json()
    assert (shown["completed"], shown["progress"], shown["eta_seconds"]) == (10_000, 100, 0.0)
    assert shown["finished_at"] == services.progress_of([large])[large.pk].finished_at.isoformat().replace(
        "+00:00", "Z"
    )


def test_of_those_that_go_on_each_is_counted(staff, submit):
    end(submit())
    submit()
    listed(staff)

    statuses, looks = listed(staff)

    assert statuses == ["queued", "completed"]
    assert len(looks) == 1


def test_a_retry_of_the_run_or_of_one_picture_opens_it_again(staff, submit, owner):
    by_run, by_job = submit(), submit()
    for run in (by_run, by_job):
        end(run, JobStatus.FAILED)
    assert listed(staff)[0] == ["failed", "failed"]

    services.retry_set_run(by_run, owner=owner)
    services.retry_generation_job(by_job.items.first(), owner=owner)

    assert listed(staff)[0] == ["running", "queued"]
    for run in (by_run, by_job):
        end(run)
    assert listed(staff)[0] == ["failed", "completed"]


def test_an_end_that_was_counted_before_a_retry_is_not_noted_after_it(submit, owner, monkeypatch):
    run = submit()
    end(run, JobStatus.FAILED)
    count = set_runs._count

    def count_and_be_overtaken(runs):
        found = count(runs)
        services.retry_set_run(run, owner=owner)
        return found

    monkeypatch.setattr(set_runs, "_count", count_and_be_overtaken)
    services.progress_of([run])
    monkeypatch.undo()

    assert services.progress_of([run])[run.pk].status == JobStatus.QUEUED
