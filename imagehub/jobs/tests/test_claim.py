"""Who gets which job, and that nobody gets it twice."""

import subprocess
import sys
from collections import Counter
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

CLAIM_EVERYTHING = """
import django; django.setup()
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

        with django_assert_num_queries(8):  # 3 to choose, 1 to claim, 1 for the turn, 1 to read, a savepoint
            Errand.objects.claim(worker="w")


@pytest.mark.django_db
def test_queue_positions_are_the_order_of_the_claims():
    owners = [UserFactory() for _ in range(3)]
    for n, owner in enumerate([0, 0, 0, 1, 1, 2, 0]):
        ErrandFactory(owner=owners[owner], priority=1 if n == 4 else 0)
    positions = Errand.objects.queue_positions()
    expected = sorted(positions, key=positions.get)

    claimed = [Errand.objects.claim(worker="w").pk for _ in range(7)]

    assert claimed == expected


@pytest.mark.django_db(transaction=True)
def test_eight_processes_claim_two_hundred_rows_exactly_once(process_env):
    owners = [UserFactory() for _ in range(5)]
    rows = {str(ErrandFactory(owner=owners[n % 5]).pk) for n in range(200)}

    claimers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_EVERYTHING],
            env=process_env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    claimed = Counter(line for claimer in claimers for line in claimer.communicate(timeout=120)[0].split())

    assert [claimer.returncode for claimer in claimers] == [0] * 8
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
