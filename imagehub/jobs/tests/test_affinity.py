"""Jobs that suit what a worker has at hand go first, and nobody waits for that for ever."""

import dataclasses
from datetime import timedelta
from itertools import pairwise

import pytest
from django.utils import timezone

from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import MOST_OVERTAKEN, JobStatus
from imagehub.jobs.registry import get_kind, register
from imagehub.jobs.tests.claimers import claim_from_many_processes
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory
from imagehub.tests.together import at_once

CLAIM_EVERYTHING = """
import dataclasses, django; django.setup()
from imagehub.jobs.registry import get_kind, register
from imagehub.jobs.tests.errands.models import Errand
register(dataclasses.replace(get_kind("errand"), affinity="behaviour"))
warm = set()
while (job := Errand.objects.claim(worker="test", warm=warm)) is not None:
    warm = {job.behaviour}
    print(job.pk)
"""


@pytest.fixture(autouse=True)
def _affinity():
    kind = get_kind("errand")
    register(dataclasses.replace(kind, affinity="behaviour"))
    yield
    register(kind)


def queue(models: str, **fields) -> list[Errand]:
    """Queue one job for each letter, a second apart, of one owner."""
    start = timezone.now() - timedelta(hours=1)
    fields = {"owner": UserFactory()} | fields
    return [
        ErrandFactory(behaviour=model, queued_at=start + timedelta(seconds=place), **fields)
        for place, model in enumerate(models)
    ]


def work_off(warm: str = "") -> str:
    """Claim as a worker that keeps one model loaded; return the models in the order of the claims."""
    order = ""
    while (job := Errand.objects.claim(worker="w", warm=set(order[-1:] or warm))) is not None:
        order += job.behaviour
    return order


def loads(order: str) -> int:
    return 1 + sum(one != other for one, other in pairwise(order))


@pytest.mark.django_db
class TestAffinity:
    def test_forty_jobs_for_two_models_in_turn_take_at_most_six_loads(self):
        queue("ab" * 20)

        order = work_off()

        assert len(order) == 40
        assert loads(order) <= 6
        assert max(Errand.objects.values_list("overtaken", flat=True)) <= MOST_OVERTAKEN

    def test_a_job_is_overtaken_sixteen_times_and_then_goes_first(self):
        queue("b" + "a" * 40)

        assert work_off(warm="a") == "a" * 16 + "b" + "a" * 24

    def test_what_was_overtaken_is_counted(self):
        first, second, _ = queue("bca")

        Errand.objects.claim(worker="w", warm={"a"})

        assert set(Errand.objects.filter(status=JobStatus.QUEUED).values_list("pk", "overtaken")) == {
            (first.pk, 1),
            (second.pk, 1),
        }

    def test_the_oldest_goes_where_none_of_the_oldest_suits(self):
        first, *_ = queue("b" * 32 + "a")

        assert Errand.objects.claim(worker="w", warm={"a"}).pk == first.pk

    def test_a_higher_priority_is_never_overtaken(self):
        [urgent] = queue("b", priority=1)
        queue("a", owner=urgent.owner)

        assert work_off(warm="a") == "ba"

    def test_another_owner_is_never_overtaken(self):
        [first] = queue("b")
        queue("a")

        assert Errand.objects.claim(worker="w", warm={"a"}).pk == first.pk

    @pytest.mark.parametrize("length", [3, 60])
    def test_costs_as_many_queries_however_long_the_queue(self, length, django_assert_max_num_queries):
        queue("bb" + "a" * length)
        Errand.objects.claim(worker="w")

        # As ever, and 4: the turn, the oldest, their locks, the count.
        with django_assert_max_num_queries(13):
            assert Errand.objects.claim(worker="w", warm={"a"}).behaviour == "a"


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_at_once_serve_everybody():
    for letter in "abc":
        queue(letter * 4)

    claimed = at_once(lambda number: Errand.objects.claim(worker=f"w{number}"), range(3))

    assert len({job.owner_id for job in claimed}) == 3


@pytest.mark.django_db(transaction=True)
def test_eight_processes_claim_each_row_once_and_overtake_within_bounds(process_env):
    queue("abc" * 40)
    rows = {str(pk) for pk in Errand.objects.values_list("pk", flat=True)}

    claimed = claim_from_many_processes(CLAIM_EVERYTHING, process_env)

    assert set(claimed) == rows
    assert set(claimed.values()) == {1}
    assert max(Errand.objects.values_list("overtaken", flat=True)) <= MOST_OVERTAKEN
