"""How a job ends, told by what its work does; and what a doorbell leads to."""

import pytest
from django_q.models import OrmQ

from imagehub.jobs import runner, stopping
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.queue import is_ringing, ring
from imagehub.jobs.reaper import reap
from imagehub.jobs.tasks import answer_doorbell
from imagehub.jobs.tests.errands.models import Effect, Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = pytest.mark.django_db


def run(**fields) -> Errand:
    job = ErrandFactory(**fields)
    answer_doorbell(Cluster.SCRAPING)
    job.refresh_from_db()
    return job


def test_good_work_completes():
    job = run()

    assert (job.status, job.progress, Effect.objects.count()) == (JobStatus.COMPLETED, 100, 1)


def test_an_anticipated_failure_has_a_code_a_sentence_and_a_trace_for_staff():
    job = run(behaviour="fails")

    assert (job.status, job.error_code, job.error_detail) == (
        JobStatus.FAILED,
        "no_luck",
        "It did not work out.",
    )
    assert "secret trace" in job.error_trace


def test_a_bug_tells_its_owner_nothing_internal():
    job = run(behaviour="crashes")

    assert (job.status, job.error_code) == (JobStatus.FAILED, "internal_error")
    assert "secret" not in job.error_detail
    assert "ZeroDivisionError" in job.error_trace


def test_work_that_forgets_to_end_is_not_left_running():
    assert run(behaviour="forgets").error_code == "internal_error"


def test_a_failed_job_does_not_stop_the_next():
    ErrandFactory(behaviour="crashes")

    assert run().status == JobStatus.COMPLETED


def test_interrupted_work_is_tried_again():
    job = run(behaviour="is_interrupted")

    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 3)


def test_interrupted_work_fails_when_its_attempts_are_used_up():
    job = run(behaviour="is_interrupted", max_attempts=2)

    assert (job.status, job.attempt, job.error_code) == (JobStatus.FAILED, 2, "program_died")


def test_a_database_error_is_tried_again_and_its_text_is_not_logged(caplog):
    job = run(behaviour="loses_the_database")

    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
    assert "secret" not in caplog.text


def test_a_worker_that_cannot_work_rests_and_costs_no_attempt(monkeypatch):
    rests = []

    def rest():
        rests.append(1)
        stopping.request_stop()

    monkeypatch.setattr(runner, "_rest", rest)

    job = run(behaviour="has_no_engine")

    assert (job.status, job.attempt, job.message) == (JobStatus.QUEUED, 0, "The engine does not start.")
    assert rests == [1]


def test_an_error_outside_of_jobs_leaves_no_text_with_django_q(monkeypatch, caplog):
    def broken(_):
        raise ValueError("secret prompt")

    monkeypatch.setattr(runner, "work_off", broken)

    assert answer_doorbell(Cluster.SCRAPING) == 0
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_one_doorbell_works_off_the_whole_queue():
    for _ in range(5):
        ErrandFactory()

    assert answer_doorbell(Cluster.SCRAPING) == 5
    assert answer_doorbell(Cluster.SCRAPING) == 0


def test_a_doorbell_of_another_cluster_leaves_the_job_alone():
    job = ErrandFactory()

    answer_doorbell(Cluster.GENERATION)

    job.refresh_from_db()
    assert job.status == JobStatus.QUEUED


def test_a_stopping_cluster_takes_nothing():
    stopping.request_stop()

    assert run().status == JobStatus.QUEUED


def test_the_slice_ends_with_another_ring(monkeypatch, django_capture_on_commit_callbacks):
    monkeypatch.setattr(runner, "SLICE_SECONDS", 0)

    with django_capture_on_commit_callbacks(execute=True):
        assert run().status == JobStatus.QUEUED

    assert is_ringing(Cluster.SCRAPING)


class TestRing:
    def test_rings_when_the_transaction_commits(self, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks(execute=True):
            ring(Cluster.SCRAPING)
            assert not OrmQ.objects.exists()

        assert OrmQ.objects.get().key == "scraping"

    @pytest.mark.parametrize("name", ["scrapping", "generation", ""])
    def test_refuses_a_name_that_is_no_cluster(self, name):
        with pytest.raises(TypeError, match="not a Cluster"):
            ring(name)


def test_the_reaper_rings_for_jobs_nobody_was_told_about(django_capture_on_commit_callbacks):
    ErrandFactory()

    with django_capture_on_commit_callbacks(execute=True):
        reap()
    with django_capture_on_commit_callbacks(execute=True):
        reap()

    assert list(OrmQ.objects.values_list("key", flat=True)) == ["scraping"]
