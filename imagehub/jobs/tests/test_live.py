"""Previews are shown to those who watch, of the claim that is, and are gone when nobody watches."""

import base64
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from imagehub.jobs import live, reaper
from imagehub.jobs.lease import Lease
from imagehub.jobs.models import Audience
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = pytest.mark.django_db

JPEG = b"\xff\xd8small"
EVENT = {"step": 3, "data": base64.b64encode(JPEG).decode()}


@pytest.fixture(autouse=True)
def _eager(monkeypatch):
    """Let the worker look anew each time, and show all it has."""
    monkeypatch.setattr(live, "LOOK_SECONDS", 0)
    monkeypatch.setattr(live, "PREVIEW_SECONDS", 0)


@pytest.fixture
def job() -> Errand:
    ErrandFactory()
    return Errand.objects.claim(worker="w")


def leave() -> None:
    """Let everybody who watches have gone a while ago."""
    Audience.objects.update(until=timezone.now() - timedelta(seconds=1))


def test_who_watches_is_shown_the_latest(job):
    live.watch([job.pk])

    assert live.publish(job, EVENT)

    assert live.previews([job]) == {job.pk: live.Preview(3, JPEG)}


def test_the_next_attempt_does_not_show_what_the_one_before_made(job):
    live.watch([job.pk])
    live.publish(job, EVENT)

    Lease(job).hand_back()  # which leaves the number of the attempt as it was
    waiting = Errand.objects.get()
    again = Errand.objects.claim(worker="w")

    assert live.previews([waiting]) == live.previews([again]) == {}
    live.publish(job, EVENT)  # by the worker that has lost it
    assert live.previews([again]) == {}
    live.publish(again, EVENT)
    assert again.pk in live.previews([again])


def test_who_comes_back_is_not_shown_how_it_looked_then(job):
    live.watch_once(job.pk)
    live.publish(job, EVENT)
    leave()

    live.watch_once(job.pk)

    assert live.previews([job]) == {}
    assert Audience.objects.get().preview is None


def test_what_nobody_watches_any_more_is_gone_with_the_next_look_of_any_worker(job):
    live.watch([job.pk, uuid4()])
    live.publish(job, EVENT)
    leave()
    live.watch([watched := uuid4()])
    Audience.objects.filter(job=watched).update(preview=JPEG)
    Audience.objects.create(job=uuid4(), until=timezone.now() - timedelta(seconds=1), preview=JPEG)

    reaper.reap()

    assert [row.job for row in Audience.objects.all()] == [watched]
