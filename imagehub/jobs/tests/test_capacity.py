"""How many jobs of a kind may be under way."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.db.transaction import TransactionManagementError

from imagehub.accounts.tests.factories import UserFactory
from imagehub.concurrency import ConcurrencyLimit
from imagehub.jobs.capacity import require_capacity
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory


def start(owner) -> bool:
    try:
        with transaction.atomic():
            require_capacity(Errand, 3)
            ErrandFactory(owner=owner)
    except ConcurrencyLimit:
        return False
    return True


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_exactly_as_many_start_as_may():
    owner = UserFactory()
    together = Barrier(20)

    def start_together(_: int) -> bool:
        try:
            together.wait()
            return start(owner)
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(start_together, range(20))) == 3
    assert Errand.objects.count() == 3


@pytest.mark.django_db
class TestWhatCounts:
    @staticmethod
    def running(ends_in: timedelta):
        return ErrandFactory(status=JobStatus.RUNNING, token=uuid4(), lease_until=Now() + ends_in)

    def test_what_waits_and_what_runs(self):
        ErrandFactory()
        self.running(timedelta(seconds=20))

        assert start(UserFactory())
        assert not start(UserFactory())

    def test_not_a_draft_nor_what_has_ended(self):
        for status in (JobStatus.PENDING, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED):
            finished_at = None if status == JobStatus.PENDING else Now()
            ErrandFactory.create_batch(2, status=status, finished_at=finished_at)

        assert start(UserFactory())

    def test_not_a_running_row_that_nobody_works_on(self):
        for _ in range(5):
            self.running(timedelta(seconds=-1))

        assert [start(UserFactory()) for _ in range(4)] == [True, True, True, False]

    @pytest.mark.parametrize("limit", [0, -1])
    def test_nothing_where_there_is_no_limit(self, limit):
        ErrandFactory()

        require_capacity(Errand, limit)


@pytest.mark.django_db(transaction=True)
def test_counting_and_queueing_belong_in_one_transaction():
    with pytest.raises(TransactionManagementError):
        require_capacity(Errand, 1)
