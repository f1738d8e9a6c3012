"""A lease that goes on while its worker does something long."""

import threading
import time
from datetime import timedelta
from uuid import uuid4

import pytest

from imagehub.jobs import heart, presence, runner
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus, WorkerPresence, jobs
from imagehub.jobs.registry import JobKind
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _short_leases(monkeypatch):
    monkeypatch.setattr(jobs, "LEASE", timedelta(seconds=2))
    monkeypatch.setattr(heart, "PULSE_SECONDS", 0.1)


def hang(seconds=3.0):
    """Give no sign of life for longer than a lease; return how many jobs were taken away for it."""
    time.sleep(seconds)
    return Errand.objects.reap()


def kind_of(perform):
    return JobKind("errand", Errand, Cluster.SCRAPING, perform)


def state(job):
    job.refresh_from_db()
    return job.status, job.attempt


def hearts():
    return [thread for thread in threading.enumerate() if thread.name.startswith("heart of")]


def test_of_a_job_that_fetches_something_for_long():
    taken = []

    def perform(job, lease):
        taken.append(hang())
        lease.complete()

    job = ErrandFactory()
    runner.run_next(kind_of(perform))

    assert taken == [0]
    assert state(job) == (JobStatus.COMPLETED, 1)


def test_of_both_jobs_while_the_rest_of_one_takes_long():
    taken = []

    def perform(job, lease):
        runner.finish_previous()

        def rest():
            taken.append(hang())
            lease.complete()

        return rest

    both = [ErrandFactory(), ErrandFactory()]
    while runner.run_next(kind_of(perform)):
        taken.append(hang())  # as long as it may take to claim the next one

    assert taken == [0] * 4
    assert [state(job) for job in both] == [(JobStatus.COMPLETED, 1)] * 2


def test_ends_when_its_worker_hangs(monkeypatch):
    monkeypatch.setattr(heart, "HANGS_SECONDS", 0.5)
    taken = []
    job = ErrandFactory()

    runner.run_next(kind_of(lambda job, lease: taken.append(hang(4.0))))

    assert taken == [1]
    assert state(job) == (JobStatus.QUEUED, 1)


def test_ends_with_its_job_and_when_somebody_else_has_it():
    def perform(job, lease):
        Errand.objects.filter(pk=job.pk).update(token=uuid4())
        hang(0.5)
        assert not hearts()

    ErrandFactory()
    runner.run_next(kind_of(lambda job, lease: lease.complete()))
    time.sleep(0.5)
    assert not hearts()

    ErrandFactory()
    runner.run_next(kind_of(perform))


def test_tells_that_its_cluster_lives(monkeypatch):
    row = presence.announce(Cluster.SCRAPING)
    WorkerPresence.objects.filter(pk=row.pk).update(seen_at=row.started_at - timedelta(hours=1))
    monkeypatch.setattr(presence, "_last_stamp", float("-inf"))
    seen = []

    def perform(job, lease):
        hang(1.0)
        seen.append(presence.live(Cluster.SCRAPING).exists())
        lease.complete()

    ErrandFactory()
    runner.run_next(kind_of(perform))

    assert seen == [True]
