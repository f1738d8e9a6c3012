"""A worker whose task takes long lives, and is seen to."""

import threading
import time
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django_q.tasks import async_task

from imagehub.jobs import busy, presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import WorkerPresence
from imagehub.jobs.tests.errands import slow_tasks

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _announced(monkeypatch):
    monkeypatch.setattr(busy, "PULSE_SECONDS", 0.05)
    monkeypatch.setattr(presence, "STAMP_SECONDS", 0.0)
    monkeypatch.setattr(presence, "_current", None)
    presence.announce(Cluster.DEFAULT)
    slow_tasks.seen.clear()


def work_on(function: str) -> None:
    """Have Django-Q's own worker do a task, in this process."""
    async_task(f"{slow_tasks.__name__}.{function}", sync=True)


def stampers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "busy with a task"]


def wait_for_the_end() -> None:
    for thread in stampers():
        thread.join(5)


def test_a_cluster_is_not_taken_for_dead_while_a_task_takes_long():
    work_on("sleep")

    assert slow_tasks.seen == [True]
    wait_for_the_end()
    assert not stampers()


def test_it_stamps_no_more_when_a_task_has_failed():
    with pytest.raises(ValueError, match="broken"):
        work_on("fail")

    wait_for_the_end()
    assert not stampers()
    WorkerPresence.objects.update(seen_at=Now() - timedelta(minutes=5))
    time.sleep(0.2)
    assert not presence.live().exists()


def test_whoever_answers_the_doorbell_stamps_by_himself():
    busy.begin(func=busy.answer_doorbell)

    assert not stampers()
