"""Tallies count each end once, and do not fall, whatever happens to the rows."""

from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import Measured, _kinds, get_kind, register
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory
from imagehub.operations import tallies
from imagehub.operations.models import Tally, TallyMark
from imagehub.tests.together import at_once

pytestmark = pytest.mark.django_db

LONG_AGO = timedelta(hours=2)


@pytest.fixture(autouse=True)
def _counting_began_long_ago():
    TallyMark.objects.create(kind="errand", until=timezone.now() - LONG_AGO)


def ended(
    status: JobStatus = JobStatus.COMPLETED, *, ago: timedelta = timedelta(minutes=5), **values
) -> Errand:
    """Make an errand that waited two seconds, took four, and ended so long ago."""
    finished = timezone.now() - ago
    values = {
        "started_at": finished - timedelta(seconds=4),
        "queued_at": finished - timedelta(seconds=6),
    } | values
    return ErrandFactory(status=status, finished_at=finished, **values)


def counts(measure: str = tallies.ENDED) -> dict[str, float]:
    return {label: value for kind, label, value in tallies.read().counts(measure) if kind == "errand"}


def histogram(measure: str) -> tallies.Histogram:
    [found] = [histogram for histogram in tallies.read().histograms(measure) if histogram.kind == "errand"]
    return found


class TestCounting:
    def test_counts_each_end_once_however_often_it_is_read(self):
        ended(), ended(), ended(JobStatus.CANCELLED), ended(JobStatus.FAILED, error_code="no_luck")

        for _ in range(3):
            assert counts() == {"completed": 2, "cancelled": 1, "failed": 1}
        assert counts(tallies.FAILURES) == {"no_luck": 1}

        ended()
        assert counts()["completed"] == 3

    def test_a_purge_takes_nothing_away(self):
        ended(), ended(ago=timedelta(minutes=90))
        assert counts() == {"completed": 2}

        Errand.objects.all().delete()

        assert counts() == {"completed": 2}
        ended()
        assert counts() == {"completed": 3}

    def test_what_is_resumed_stays_counted_and_counts_again_when_it_ends(self):
        errand = ended(JobStatus.FAILED, error_code="no_luck")
        assert counts() == {"failed": 1}

        Errand.objects.filter(pk=errand.pk).update(status=JobStatus.QUEUED, finished_at=None)
        assert counts() == {"failed": 1}

        Errand.objects.filter(pk=errand.pk).update(
            status=JobStatus.COMPLETED, finished_at=timezone.now() - timedelta(minutes=2)
        )
        assert counts() == {"failed": 1, "completed": 1}

    def test_an_end_of_this_moment_waits_for_its_neighbours(self):
        """One that a transaction wrote earlier may appear later: to count up to now would pass it over."""
        ended(ago=timedelta(seconds=5))
        assert counts() == {}

        Errand.objects.update(finished_at=timezone.now() - tallies.LAG - timedelta(seconds=1))
        assert counts() == {"completed": 1}

    def test_what_ended_before_counting_began_is_not_counted(self):
        TallyMark.objects.all().delete()
        ended()

        assert counts() == counts() == {}
        assert TallyMark.objects.filter(kind="errand").exists()

    def test_a_moment_without_a_fraction_is_counted_once(self):
        """The database's clock writes it as 12:00:00.000, Python as 12:00:00, and to SQLite these are two moments."""
        whole = (timezone.now() - timedelta(minutes=5)).replace(microsecond=0)
        errand = ended()
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE errands_errand SET finished_at = %s", [f"{whole:%Y-%m-%d %H:%M:%S}.000"]
                )
        else:
            Errand.objects.filter(pk=errand.pk).update(finished_at=whole)

        assert [counts() for _ in range(3)] == [{"completed": 1}] * 3

    def test_many_that_end_in_one_moment_are_counted_together(self, monkeypatch):
        monkeypatch.setattr(tallies, "BATCH", 3)
        first, second = timezone.now() - timedelta(minutes=9), timezone.now() - timedelta(minutes=8)
        for moment in [first] * 5 + [second] * 2:
            ErrandFactory(status=JobStatus.CANCELLED, finished_at=moment)

        assert [counts()["cancelled"] for _ in range(3)] == [5, 7, 7]

    def test_jobs_that_cannot_be_measured_stop_nothing(self, monkeypatch, caplog):
        told = [
            Measured({"walk": None}), Measured({}, {"errands": float("nan")}), Measured({"walk": 1.0}, {"errands": 3}),
            Measured({"walk": float("inf")}), Measured({"walk": 1.0}, {"errands": -5}), None,
        ]  # fmt: skip
        kind = get_kind("errand")
        monkeypatch.setitem(_kinds, "errand", type(kind)(**vars(kind) | {"measure": lambda _: told.pop()}))
        for _ in range(6):
            ended()

        assert counts() == {"completed": 6}
        assert counts(tallies.DONE) == {"errands": 3}
        [line] = [record.getMessage() for record in caplog.records if record.name == tallies.__name__]
        assert line.startswith("Jobs of the kind errand could not be measured: ")
        assert "'ValueError': 2" in line

    def test_codes_without_end_become_one(self, monkeypatch):
        monkeypatch.setattr(tallies, "MOST_LABELS", 2)
        for code in ("one", "two", "three", "four", "two"):
            ended(JobStatus.FAILED, error_code=code)
        ended(JobStatus.FAILED, error_code="Ünspeakable/code")

        found = Counter(counts(tallies.FAILURES))

        assert found.total() == 6
        assert len(found) == 3
        assert found[tallies.OTHER] >= 2


class TestHistograms:
    def test_tell_how_long_jobs_waited_and_took(self):
        ended(), ended(queued_at=None), ended(JobStatus.FAILED, error_code="no_luck")

        waited, took = histogram(tallies.WAIT), histogram(tallies.DURATION)

        assert dict(waited.buckets) | {"1": 0, "2.5": 2, "+Inf": 2} == dict(waited.buckets)
        assert waited.seconds == pytest.approx(4)
        assert dict(took.buckets) | {"2.5": 0, "5": 2, "86400": 2, "+Inf": 2} == dict(took.buckets)
        assert took.seconds == pytest.approx(8)

    def test_a_kind_tells_of_its_phases_and_what_it_made(self, monkeypatch):
        kind = get_kind("errand")
        told = Measured({"walk": 0.2, "rest": 7200.0}, {"errands": 2})
        register(type(kind)(**vars(kind) | {"measure": lambda _: told}))
        try:
            ended(), ended()

            assert counts(tallies.DONE) == {"errands": 4}
            walk = next(found for found in tallies.read().histograms(tallies.PHASE) if found.label == "walk")
            assert (walk.buckets[-1], walk.seconds) == (("+Inf", 2), pytest.approx(0.4))
        finally:
            register(kind)


@pytest.mark.django_db(transaction=True)
class TestTogether:
    def test_many_who_read_at_once_count_each_end_once(self):
        for _ in range(20):
            ended()

        at_once(lambda _: tallies.read(), range(4))

        assert counts() == {"completed": 20}
        assert Tally.objects.filter(measure=tallies.ENDED).count() == 1
