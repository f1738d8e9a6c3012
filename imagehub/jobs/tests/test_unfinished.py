"""Work that leaves something to do for when the next job has begun."""

from uuid import uuid4

import pytest

from imagehub.jobs import runner
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.lease import JobFailed
from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import JobKind
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def order():
    return []


@pytest.fixture
def kind(order):
    """A kind whose jobs each note when they begin and when they end; ``behaviour`` says what goes wrong."""

    def perform(job, lease):
        order.append(f"{job.message} begins")
        if job.behaviour == "fails_at_once":
            raise JobFailed("early", "It cannot begin.")
        runner.finish_previous()
        order.append(f"{job.message} works")

        def rest():
            order.append(f"{job.message} ends")
            if job.behaviour == "fails":
                raise JobFailed("late", "It cannot be stored.")
            if job.behaviour == "forgets":
                return
            lease.complete()

        return rest

    return JobKind("errand", Errand, Cluster.SCRAPING, perform)


def work_off(kind):
    while runner.run_next(kind):
        pass


def status_of(job):
    job.refresh_from_db()
    return job.status, job.error_code


def test_is_finished_once_the_next_job_works_and_at_the_end(kind, order):
    jobs = [ErrandFactory(message=name) for name in "ab"]

    work_off(kind)

    assert order == ["a begins", "a works", "b begins", "a ends", "b works", "b ends"]
    assert [status_of(job) for job in jobs] == [(JobStatus.COMPLETED, "")] * 2


def test_is_finished_when_the_next_job_never_began(kind, order):
    first, second = ErrandFactory(message="a"), ErrandFactory(message="b", behaviour="fails_at_once")

    work_off(kind)

    assert order == ["a begins", "a works", "b begins", "a ends"]
    assert status_of(first) == (JobStatus.COMPLETED, "")
    assert status_of(second) == (JobStatus.FAILED, "early")


def test_that_fails_fails_its_own_job(kind):
    first, second = ErrandFactory(message="a", behaviour="fails"), ErrandFactory(message="b")

    work_off(kind)

    assert status_of(first) == (JobStatus.FAILED, "late")
    assert status_of(second) == (JobStatus.COMPLETED, "")


def test_that_forgets_to_end_the_job_is_not_left_running(kind):
    job = ErrandFactory(message="a", behaviour="forgets")

    work_off(kind)

    assert status_of(job) == (JobStatus.FAILED, "internal_error")


def test_of_a_job_that_was_taken_away_writes_nothing(kind):
    job = ErrandFactory(message="a")
    assert runner.run_next(kind)
    Errand.objects.filter(pk=job.pk).update(token=uuid4())

    work_off(kind)

    assert status_of(job) == (JobStatus.RUNNING, "")
