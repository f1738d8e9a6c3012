"""How long runs that wait are likely to take: by what steps took here, and by nothing else."""

from datetime import timedelta

import pytest
from django.utils import timezone

from imagehub.jobs.models import JobStatus
from training.outlook import estimate_seconds
from training.tests.factories import TrainingRunFactory

pytestmark = pytest.mark.django_db


def past(**facts):
    """A run of ten steps that was completed, and that its last attempt, an hour long, only took in."""
    now = timezone.now()
    return TrainingRunFactory(
        status=JobStatus.COMPLETED,
        attempt=2,
        started_at=now - timedelta(hours=1),
        finished_at=now,
        facts=facts,
    )


def waiting(**values):
    run = TrainingRunFactory(queued=True, estimate={"seconds": 70.0}, **values)
    return estimate_seconds([run]).get(run.pk)


def test_steps_take_what_they_took():
    for seconds in (0.4, 0.5, 9.0):
        past(seconds_per_step=seconds)

    assert waiting() == pytest.approx(10 * 0.5)


def test_a_run_that_goes_on_has_less_before_it():
    past(seconds_per_step=0.5)

    assert waiting(step=6) == pytest.approx(4 * 0.5)


def test_what_was_not_measured_says_nothing():
    past(imported=True)
    past(seconds_per_step=None)

    assert waiting() == 70


def test_only_the_latest_count(monkeypatch):
    monkeypatch.setattr("training.outlook.MEASURED_RUNS", 2)
    for seconds in (90.0, 0.5, 0.7):
        past(seconds_per_step=seconds)

    assert waiting() == pytest.approx(10 * 0.6)


def test_runs_that_failed_do_not_count():
    run = past(seconds_per_step=0.5)
    type(run).objects.update(status=JobStatus.FAILED)

    assert waiting() == 70
