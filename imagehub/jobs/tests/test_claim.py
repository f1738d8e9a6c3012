"""Who gets which job, and that nobody gets it twice."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.lease import Lease
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tests.claimers import claim_from_many_processes
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

CLAIM_EVERYTHING = """
from imagehub.jobs.tests.errands.models import Errand
while (job := Errand.objects.claim(worker="test")) is not None:
    print(job.pk)
"""


@pytest.mark.django_db
class TestClaim:
    def test_takes_the_highest_priority_first(self):
        ErrandFactory(priority=0)
        urgent = ErrandFactory(priority=5)

        assert Errand.objects.claim(worker="w").pk == urgent.pk

    def test_serves_the_owner_who_was_served_least_recently(self):
        many, one = UserFactory(), UserFactory()
        first, *_ = [ErrandFactory(owner=many) for _ in range(20)]
        late = ErrandFactory(owner=one)

        assert Errand.objects.claim(worker="w").pk == first.pk
        assert Errand.objects.claim(worker="w").pk == late.pk
        assert Errand.objects.claim(worker="w").owner == many

    def test_takes_the_oldest_of_one_owner(self):
        owner = UserFactory()
        now = timezone.now()
        ErrandFactory(owner=owner, queued_at=now)
        older = ErrandFactory(owner=owner, queued_at=now - timedelta(seconds=1))

        assert Errand.objects.claim(worker="w").pk == older.pk

    def test_leases_and_counts_the_attempt(self):
        ErrandFactory()

        job = Errand.objects.claim(worker="host:1")

        assert (job.status, job.attempt, job.worker) == (JobStatus.RUNNING, 1, "host:1")
        assert job.token is not None
        assert timezone.now() < job.lease_until < timezone.now() + timedelta(seconds=21)

    def test_returns_none_when_nothing_is_queued(self):
        ErrandFactory(status=JobStatus.PENDING)

        assert Errand.objects.claim(worker="w") is None

    def test_asks_the_database_a_fixed_number_of_times(self, django_assert_num_queries):
        for _ in range(30):
            ErrandFactory()
        Errand.objects.claim(worker="w")

        with django_assert_num_queries(
            9
        ):  # 1 to look, 3 to choose, 1 to claim, 1 for the turn, 1 to read, a savepoint
            Errand.objects.claim(worker="w")


@pytest.mark.django_db(transaction=True)
def test_eight_processes_claim_two_hundred_rows_exactly_once(process_env):
    owners = [UserFactory() for _ in range(5)]
    rows = {str(ErrandFactory(owner=owners[n % 5]).pk) for n in range(200)}

    claimed = claim_from_many_processes(CLAIM_EVERYTHING, process_env)

    assert set(claimed) == rows
    assert set(claimed.values()) == {1}
    assert set(Errand.objects.values_list("attempt", flat=True)) == {1}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "broken",
    [
        {"status": JobStatus.COMPLETED},  # finished, but never
        {"status": JobStatus.RUNNING},  # running, but nobody's
        {"finished_at": Now()},
        {"progress": 101},
    ],
)
def test_the_database_refuses_rows_that_contradict_themselves(broken):
    job = ErrandFactory()

    with pytest.raises(IntegrityError), transaction.atomic():
        Errand.objects.filter(pk=job.pk).update(**broken)


@pytest.mark.django_db
def test_a_job_that_costs_three_workers_fails_while_the_others_go_on():
    owner = UserFactory()
    poison, *others = [ErrandFactory(owner=owner) for _ in range(4)]
    done = []
    for _ in range(6):
        job = Errand.objects.claim(worker="w")
        if job.pk == poison.pk:  # and with it, its worker
            Errand.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
            Errand.objects.reap()
        else:
            Lease(job).complete()
            done.append(job.pk)

    poison.refresh_from_db()
    assert (poison.status, poison.error_code, poison.attempt) == (JobStatus.FAILED, "worker_lost", 3)
    assert done == [other.pk for other in others]
