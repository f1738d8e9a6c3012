from datetime import timedelta
from itertools import chain

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from imagehub.operations.models import Purge
from imagehub.operations.walking import in_order, older_than

pytestmark = pytest.mark.django_db


def ended(at=None):
    return Purge.objects.create(kind="errand", origin="clock", older_than_days=1, finished_at=at)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_meets_each_row_once_the_oldest_first(size):
    now = timezone.now()
    jobs = [ended(now - timedelta(days=days)) for days in (40, 50, 50, 31)]
    ended(now - timedelta(days=29))
    ended()

    lists = list(older_than(Purge.objects.all(), now - timedelta(days=30), by="finished_at", size=size))

    keys = list(chain(*lists))
    assert keys[2:] == [jobs[0].pk, jobs[3].pk]
    assert set(keys[:2]) == {jobs[1].pk, jobs[2].pk}
    assert max(map(len, lists)) <= size


def test_meets_all_that_the_clock_of_the_database_gave_the_same_moment():
    """SQLite writes milliseconds then, and what is compared with them must not be microseconds."""
    for _ in range(5):
        ended(timezone.now())
    Purge.objects.update(finished_at=Now())

    found = older_than(Purge.objects.all(), timezone.now() + timedelta(1), by="finished_at", size=2)

    assert sorted(chain(*found)) == sorted(Purge.objects.values_list("pk", flat=True))


def test_may_be_walked_while_what_was_met_is_deleted():
    for _ in range(5):
        ended(timezone.now())
    for keys in in_order(Purge.objects.all(), size=2):
        Purge.objects.filter(pk__in=keys).delete()
    assert not Purge.objects.exists()
