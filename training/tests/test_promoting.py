"""Promotions whose message comes twice, whose worker dies, and whose adapter is deleted."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from imagehub.jobs.models import JobStatus
from imagehub.tests.together import at_once
from training import tasks
from training.models import Adapter, Checkpoint, TrainingRun
from training.services import promoting, supervising
from training.tests.factories import TrainingRunFactory
from training.tests.test_results import checkpoint
from training.tests.weight_headers import write_sd1_adapter

pytestmark = pytest.mark.django_db


@pytest.fixture
def waiting(staff):
    row = checkpoint(TrainingRunFactory(failed=True))
    return promoting.promote_checkpoint(row, user=staff.user, name="the best")


def test_an_adapter_that_was_deleted_does_not_come_back_until_somebody_asks(staff, exports, waiting):
    exports()
    assert tasks.promote_waiting() == 1
    adapter = Adapter.objects.get()

    assert staff.delete(f"/api/loras/{adapter.pk}").status_code == 204
    assert tasks.promote_waiting() == 0
    assert not Adapter.objects.exists()

    promoting.promote_checkpoint(waiting, user=staff.user)
    assert tasks.promote_waiting() == 1


def test_two_workers_make_one_adapter_by_files_of_their_own(waiting, monkeypatch):
    files = []

    def export(row, arguments):
        files.append(arguments[-1])
        promoting.promote_waiting()  # the other worker, meanwhile
        write_sd1_adapter(Path(arguments[-1]), mark="one")

    monkeypatch.setattr(promoting, "_export", export)

    assert promoting.promote_waiting() == 1
    assert len(files) == 1
    waiting.refresh_from_db()
    assert (waiting.promotion, waiting.adapter) == ("done", Adapter.objects.get())


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_at_once_one_has_it():
    for _ in range(4):
        checkpoint(TrainingRunFactory(failed=True), promotion="waiting", promoted_at=timezone.now())
    claimed = []

    def work(_):
        while (row := promoting._claim()) is not None:
            claimed.append(row.pk)

    at_once(work, range(6))

    assert len(claimed) == len(set(claimed)) == 4


def test_one_whose_worker_died_is_made_by_another(waiting, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(promoting, "_export", dies)
        with pytest.raises(KeyboardInterrupt):
            promoting.promote_waiting()
    files = []

    def export(row, arguments):
        files.append(arguments[-1])
        write_sd1_adapter(Path(arguments[-1]), mark="one")

    monkeypatch.setattr(promoting, "_export", export)
    assert promoting.promote_waiting() == 0  # it may be at it still

    Checkpoint.objects.update(promotion_began_at=timezone.now() - timedelta(days=1))
    assert promoting.promote_waiting() == 1
    assert Checkpoint.objects.get().promotion == "done"


def test_the_trainer_keeps_what_is_about_to_become_an_adapter_and_nothing_stays_pinned(waiting, exports):
    run = waiting.run
    assert supervising._pinned(run) == (4,)

    exports()
    promoting.promote_waiting()

    assert supervising._pinned(run) == ()
    assert not Checkpoint.objects.get().is_pinned


def test_asking_again_while_it_is_made_changes_nothing(waiting, staff):
    Checkpoint.objects.update(promotion="working", promotion_began_at=timezone.now())

    assert promoting.promote_checkpoint(waiting, user=staff.user, name="other").promoted_as == "the best"
    assert Checkpoint.objects.get().promotion == "working"
    assert TrainingRun.objects.get().status == JobStatus.FAILED
