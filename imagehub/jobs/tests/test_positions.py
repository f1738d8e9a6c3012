"""Places in the queue are the order in which jobs are claimed."""

import random
from datetime import timedelta

import pytest
from django.utils import timezone

from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.jobs.positions import queue_positions
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = pytest.mark.django_db


def claim_all() -> list:
    claimed = []
    while (job := Errand.objects.claim(worker="w")) is not None:
        claimed.append(job.pk)
    return claimed


@pytest.mark.parametrize("seed", range(6))
def test_they_are_the_order_of_the_claims(seed):
    chance = random.Random(seed)
    owners = [UserFactory() for _ in range(4)]
    for _ in range(chance.randrange(5)):  # some have had a turn already
        ErrandFactory(owner=chance.choice(owners))
    claim_all()
    now = timezone.now()
    jobs = [
        ErrandFactory(
            owner=chance.choice(owners),
            priority=chance.choice([-1, 0, 0, 3]),
            queued_at=now - timedelta(seconds=chance.randrange(3)),
        )
        for _ in range(chance.randrange(1, 24))
    ]
    one_by_one = {job.pk: queue_positions(Errand, [job])[job.pk] for job in jobs}
    positions = queue_positions(Errand, jobs)

    assert one_by_one == positions
    assert sorted(positions, key=positions.get) == claim_all()
    assert sorted(positions.values()) == list(range(1, len(jobs) + 1))


def test_jobs_that_were_queued_by_one_statement_have_places_of_their_own():
    owner = UserFactory()
    jobs = [ErrandFactory(owner=owner, status=JobStatus.PENDING, queued_at=None) for _ in range(5)]
    Errand.objects.filter(owner=owner).enqueue()  # with the database's own time
    jobs = list(Errand.objects.filter(owner=owner).order_by("pk"))

    assert [queue_positions(Errand, [job])[job.pk] for job in jobs] == [1, 2, 3, 4, 5]


def test_only_jobs_that_wait_have_one():
    running = ErrandFactory()
    Errand.objects.claim(worker="w")
    running.refresh_from_db()
    waiting = ErrandFactory()

    assert queue_positions(Errand, [running, waiting, ErrandFactory(status=JobStatus.PENDING)]) == {
        waiting.pk: 1
    }


@pytest.mark.parametrize("size", [1, 5])
def test_the_length_of_the_queue_costs_no_further_query(size, django_assert_num_queries):
    jobs = [ErrandFactory() for _ in range(20)]

    with django_assert_num_queries(3):
        queue_positions(Errand, jobs[:size])
