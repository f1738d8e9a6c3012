"""A worker that was given up for dead writes nothing."""

from datetime import timedelta

import pytest
from django.db import OperationalError, transaction
from django.db.models.functions import Now

from imagehub.jobs import lease as lease_module
from imagehub.jobs import stopping
from imagehub.jobs.lease import JobCancelled, Lease, LeaseLost, WorkerStopping
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tests.errands.models import Effect, Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_throttle(monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.0)


def claim() -> tuple[Errand, Lease]:
    ErrandFactory()
    job = Errand.objects.claim(worker="w")
    return job, Lease(job)


def expire(job: Errand) -> None:
    Errand.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))


def test_a_lost_lease_is_queued_again_and_the_late_writer_is_refused():
    job, late = claim()
    expire(job)

    assert Errand.objects.reap() == 1
    successor = Lease(Errand.objects.claim(worker="other"))

    for write in (late.renew, late.complete, late.cancel, late.hand_back, lambda: late.fail("c", "d")):
        with pytest.raises(LeaseLost):
            write()
    successor.complete()
    job.refresh_from_db()
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)


def test_a_late_result_leaves_no_effect():
    job, late = claim()
    expire(job)
    Errand.objects.reap()

    with pytest.raises(LeaseLost), transaction.atomic():
        Effect.objects.create(errand=job, pid=1)
        late.complete()

    assert not Effect.objects.exists()


def test_an_expired_lease_that_nobody_took_can_still_be_renewed():
    job, lease = claim()
    expire(job)

    lease.renew()

    assert Errand.objects.reap() == 0


def test_a_job_that_loses_its_worker_too_often_fails():
    job, _ = claim()
    for _ in range(2):
        expire(job)
        Errand.objects.reap()
        assert Errand.objects.claim(worker="w").pk == job.pk
    expire(job)

    Errand.objects.reap()

    job.refresh_from_db()
    assert (job.status, job.error_code) == (JobStatus.FAILED, "worker_lost")


def test_handing_back_does_not_count_as_an_attempt_and_keeps_the_place():
    job, lease = claim()

    lease.hand_back()

    again = Errand.objects.get()
    assert (again.status, again.attempt, again.queued_at) == (JobStatus.QUEUED, 0, job.queued_at)


def test_cancelling_a_queued_job_ends_it_at_once():
    job = ErrandFactory()

    assert Errand.objects.filter(pk=job.pk).request_cancel() == 1

    job.refresh_from_db()
    assert job.status == JobStatus.CANCELLED


def test_cancelling_a_running_job_asks_its_worker():
    job, lease = claim()

    assert Errand.objects.filter(pk=job.pk).request_cancel() == 1
    assert Errand.objects.get().status == JobStatus.RUNNING

    with pytest.raises(JobCancelled):
        lease.raise_if_stopping()


def test_a_lost_worker_does_not_revive_a_job_that_was_to_be_cancelled():
    job, _ = claim()
    Errand.objects.request_cancel()
    expire(job)

    Errand.objects.reap()

    assert Errand.objects.get().status == JobStatus.CANCELLED


def test_a_stopping_cluster_lets_go_of_its_job():
    _, lease = claim()
    stopping.request_stop()

    with pytest.raises(WorkerStopping):
        lease.raise_if_stopping()


def test_progress_is_written_with_the_beat():
    job, lease = claim()
    lease.report(step=0, total_steps=4)
    lease.report(step=3, total_steps=4, message="Denoising")

    lease.beat()

    job.refresh_from_db()
    assert (job.step, job.total_steps, job.progress, job.message) == (3, 4, 75, "Denoising")
    assert job.eta_seconds is not None


def test_at_most_one_write_a_second(monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 1.0)
    _, lease = claim()

    with django_assert_num_queries(0):
        for step in range(1000):
            lease.report(step=step, total_steps=1000)
            lease.beat()


class TestCancelSurvives:
    """No worker can revive a job that somebody has cancelled, whatever happens to it in between."""

    @pytest.mark.parametrize("way", ["retry", "hand_back"])
    def test_a_cancelled_job_is_not_queued_again(self, way):
        _, lease = claim()
        Errand.objects.request_cancel()

        getattr(lease, way)()

        assert Errand.objects.get().status == JobStatus.CANCELLED

    def test_it_reaches_a_job_whatever_it_is_doing(self):
        _, lease = claim()
        lease.retry()
        assert Errand.objects.request_cancel() == 1
        assert Errand.objects.get().status == JobStatus.CANCELLED
        assert Errand.objects.request_cancel() == 0


class TestDatabaseTrouble:
    def broken(self, *_, **__):
        raise OperationalError("database is locked")

    def test_a_moment_without_the_database_costs_nothing(self, monkeypatch):
        job, lease = claim()
        with monkeypatch.context() as patch:
            patch.setattr(Lease, "renew", self.broken)
            lease.beat()

        lease.complete()

        job.refresh_from_db()
        assert job.status == JobStatus.COMPLETED

    def test_it_lets_go_before_its_lease_ends(self, monkeypatch):
        _, lease = claim()
        lease._last_renewal -= 16
        monkeypatch.setattr(Lease, "renew", self.broken)

        with pytest.raises(OperationalError):
            lease.beat()

    def test_trouble_of_other_jobs_is_not_this_ones(self, monkeypatch):
        _, lease = claim()
        monkeypatch.setattr(lease_module, "reap_now_and_then", self.broken)

        lease.beat()

        lease.complete()


def test_what_an_earlier_attempt_did_does_not_shorten_the_estimate(monkeypatch):
    job, lease = claim()
    lease._started -= 10
    lease.report(step=50, total_steps=100)
    lease.report(step=60, total_steps=100)

    lease.beat()

    job.refresh_from_db()
    assert job.eta_seconds == pytest.approx(40, abs=1)


@pytest.mark.parametrize("end", [Lease.cancel, lambda lease: lease.fail("broken", "It broke.")])
@pytest.mark.parametrize("is_written", [True, False])
def test_a_job_that_has_ended_is_busy_with_nothing(end, is_written):
    job, lease = claim()
    lease.report(step=5, total_steps=10, message="Training", eta_seconds=812)
    if is_written:
        lease.renew()

    end(lease)

    job.refresh_from_db()
    assert (job.step, job.message, job.eta_seconds) == (5, "", None)


def test_a_lost_job_that_has_ended_is_busy_with_nothing():
    job, lease = claim()
    lease.report(step=5, total_steps=10, message="Training", eta_seconds=812)
    lease.renew()
    Errand.objects.update(lease_until=Now() - timedelta(hours=1), attempt=3)

    Errand.objects.reap()

    job.refresh_from_db()
    assert (job.status, job.message, job.eta_seconds) == (JobStatus.FAILED, "", None)


def test_a_job_that_waited_and_was_cancelled_is_busy_with_nothing():
    job, lease = claim()
    lease.hand_back(message="This worker cannot work.")

    Errand.objects.request_cancel()

    job.refresh_from_db()
    assert (job.status, job.message) == (JobStatus.CANCELLED, "")
