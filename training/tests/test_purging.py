"""Purges that break off, come twice, or meet somebody who wants what they delete."""

import os
import shutil
import threading
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.utils import timezone

from imagehub import roots
from imagehub.errors import ImageHubError
from imagehub.jobs.models import JobStatus
from imagehub.operations import purges
from imagehub.operations.tests.killing import killed_at
from training.models import Checkpoint, TrainingRun
from training.services import promoting, purging, resuming, runs
from training.services.disk import disk_of
from training.services.run_folders import cache_root, folder_of
from training.tests.factories import TrainingRunFactory
from training.tests.test_results import aged, checkpoint
from training.tests.test_runs import write_checkpoint

pytestmark = pytest.mark.django_db


def long_ago():
    return timezone.now() - timedelta(days=30)


def fails(path):
    raise OSError(5, "Input/output error", str(path))


class TestAPurgeThatBreaksOff:
    def test_is_gone_on_with_by_the_next_one_and_does_not_keep_other_runs(self, monkeypatch):
        first, second = aged(TrainingRunFactory(failed=True)), aged(TrainingRunFactory(failed=True), days=39)
        for run in (first, second):
            checkpoint(run)
        delete = shutil.rmtree

        def stumbles(path, *args, **options):
            return fails(path) if str(first.pk) in str(path) else delete(path, *args, **options)

        with monkeypatch.context() as context:
            context.setattr(shutil, "rmtree", stumbles)
            purge = purges.purge_now("training", older_than_days=30)

        assert (purge.state, purge.result["runs"], purge.result["failed"]) == ("failed", 1, 1)
        assert purge.result["problem"] == "Of 1 runs not all could be deleted"
        first.refresh_from_db()
        assert (first.purged_at, folder_of(first).root.exists()) == (None, True)
        assert not folder_of(second).root.exists()
        with pytest.raises(runs.NotResumable):
            runs.resume_run(first)

        assert purges.purge_now("training", older_than_days=30).state == "done"
        first.refresh_from_db()
        assert first.purged_at is not None
        assert not folder_of(first).root.exists()


@pytest.mark.django_db(transaction=True)
def test_that_is_killed_before_the_rows_say_what_was_set_aside_loses_nothing_that_is_pinned_then():
    run = aged(TrainingRunFactory(failed=True))
    checkpoint(run, 2)
    row = checkpoint(run, 4)

    killed_at(type(connections["default"]), "_commit", lambda: purging.purge_artifacts(cutoff=long_ago()))
    assert not folder_of(run).checkpoints.exists()
    promoting.pin_checkpoint(row, is_pinned=True)

    freed = purging.purge_artifacts(cutoff=long_ago())
    assert (freed.checkpoints, freed.failed) == (1, 0)
    assert resuming.is_sound(run, 4)
    assert sorted(path.name for path in folder_of(run).root.iterdir()) == ["checkpoints"]
    row.refresh_from_db()
    assert (row.is_pinned, row.removed_at) == (True, None)


class TestADiskThatIsNotThere:
    @pytest.mark.parametrize("is_mount_point_left", [True, False])
    def test_refuses_the_purge_and_keeps_all_rows(self, is_mount_point_left):
        run = aged(TrainingRunFactory(failed=True))
        checkpoint(run, 4, is_pinned=True)
        checkpoint(run, 8)
        before = list(Checkpoint.objects.values())
        shutil.rmtree(roots.training_root())
        if is_mount_point_left:
            roots.training_root().mkdir()

        refused = purges.purge_now("training", older_than_days=30)

        assert refused.state == "failed"
        assert "training root is missing or empty" in refused.result["problem"]
        assert list(Checkpoint.objects.values()) == before

    @pytest.mark.parametrize("is_dry_run", [True, False])
    @pytest.mark.parametrize("fields", [{"is_pinned": True}, {"is_best": True}, {"promotion": "waiting"}])
    def test_a_run_whose_wanted_checkpoint_is_missing_is_not_touched(self, fields, is_dry_run):
        run, other = aged(TrainingRunFactory(failed=True)), aged(TrainingRunFactory(failed=True))
        checkpoint(run, 4, **fields)
        checkpoint(run, 8)
        checkpoint(other)
        shutil.rmtree(folder_of(run).checkpoints / "step-000004")
        before = list(Checkpoint.objects.filter(run=run).values())

        freed = purging.purge_artifacts(cutoff=long_ago(), is_dry_run=is_dry_run)

        assert (freed.failed, freed.runs) == (1, 1)
        assert list(Checkpoint.objects.filter(run=run).values()) == before
        assert (folder_of(run).checkpoints / "step-000008").exists()


def test_folders_that_no_run_has_are_counted_and_stay(caplog):
    """The database may be the wrong one."""
    run = aged(TrainingRunFactory(failed=True))
    checkpoint(run, 4, is_pinned=True)
    os.utime(folder_of(run).root, (0, 0))
    TrainingRun.objects.all().delete()

    freed = purging.purge_artifacts(cutoff=long_ago())

    assert (freed.strays, freed.bytes) == (1, 0)
    assert folder_of(run).checkpoints.exists()
    assert str(run.pk) in caplog.text


def test_a_run_with_nothing_left_to_delete_is_not_told_of_again():
    run = aged(TrainingRunFactory(failed=True))
    checkpoint(run, 4, is_pinned=True)
    checkpoint(run, 8)

    assert purging.purge_artifacts(cutoff=long_ago()).kept == [{"run": str(run.pk), "steps": [4]}]
    again = purging.purge_artifacts(cutoff=long_ago())
    assert (again.kept, again.bytes, again.checkpoints, again.runs) == ([], 0, 0, 0)


def test_what_the_store_has_as_well_frees_nothing(tmp_path):
    run = aged(TrainingRunFactory(failed=True))
    folder = folder_of(run)
    folder.images.mkdir(parents=True)
    stored = tmp_path / "picture"
    stored.write_bytes(b"x" * 1000)
    os.link(stored, folder.images / "linked")
    (folder.images / "copied").write_bytes(b"x" * 10)

    assert disk_of(run) == {"images": 10}
    assert purging.purge_artifacts(cutoff=long_ago(), is_dry_run=True).bytes == 10
    assert purging.purge_artifacts(cutoff=long_ago()).bytes == 10
    assert stored.exists()


def test_a_file_of_the_cache_that_vanishes_is_no_reason_to_stop(monkeypatch):
    cache_root().mkdir(parents=True)
    for name in ("a", "b"):
        (cache_root() / name).write_text("x")
        then = (timezone.now() - timedelta(days=40)).timestamp()
        os.utime(cache_root() / name, (then, then))
    path = type(cache_root())
    unlink = path.unlink

    def races(self, **options):
        unlink(self)
        if self.name == "a":
            raise FileNotFoundError

    monkeypatch.setattr(path, "unlink", races)
    assert purging.purge_artifacts(cutoff=long_ago()).cached_files == 1


def test_a_run_of_which_an_adapter_is_made_just_now_is_left_alone():
    run = aged(TrainingRunFactory(failed=True))
    checkpoint(run, 4, promotion="working", promotion_began_at=timezone.now())
    folder_of(run).export.mkdir()

    purging.purge_artifacts(cutoff=long_ago())

    assert folder_of(run).export.exists()


class TestAtTheSameTime:
    """Somebody comes while a purge looks: he waits for it, or it for him."""

    pytestmark = pytest.mark.django_db(transaction=True)

    @pytest.fixture(autouse=True)
    def _room(self, set_config):
        set_config("storage: {minimum_free_bytes: 0}")

    @pytest.fixture
    def meanwhile(self, monkeypatch):
        """Let something happen in another thread once a purge has decided what goes; return what came of it."""
        answers = []

        def during(act):
            look = purging._what_goes
            threads = []

            def work():
                try:
                    answers.append(act())
                except ImageHubError as error:
                    answers.append(type(error))
                finally:
                    connections.close_all()

            def slow(root, kept):
                doomed = look(root, kept)
                threads.append(threading.Thread(target=work))
                threads[0].start()
                threads[0].join(0.5)
                return doomed

            monkeypatch.setattr(purging, "_what_goes", slow)
            purging.purge_artifacts(cutoff=long_ago())
            threads[0].join(20)
            return answers[0]

        return during

    def test_a_pin_is_kept_or_refused(self, meanwhile):
        run = aged(TrainingRunFactory(failed=True))
        row = checkpoint(run)

        answer = meanwhile(lambda: promoting.pin_checkpoint(row, is_pinned=True))

        row = Checkpoint.objects.get()
        assert answer is promoting.CheckpointGone
        assert (row.is_pinned, row.removed_at is None) == (False, False)
        assert connection.vendor in {"sqlite", "postgresql"}

    def test_a_run_is_not_resumed_from_what_goes(self, meanwhile):
        run = aged(TrainingRunFactory(failed=True))
        checkpoint(run)
        step = runs.step_to_resume(run)

        assert meanwhile(lambda: runs.resume_run(run, from_step=step)) is runs.NotResumable
        assert TrainingRun.objects.get().status == JobStatus.FAILED

    def test_a_run_that_is_resumed_from_what_stays_keeps_it(self, meanwhile):
        run = aged(TrainingRunFactory(failed=True))
        checkpoint(run, 4, is_pinned=True)
        checkpoint(run, 2)

        meanwhile(lambda: runs.resume_run(run, from_step=4))

        assert TrainingRun.objects.get().status == JobStatus.QUEUED
        assert resuming.is_sound(run, 4)


def test_a_run_is_not_resumed_while_its_files_are_deleted(monkeypatch, set_config):
    set_config("storage: {minimum_free_bytes: 0}")
    run = aged(TrainingRunFactory(failed=True))
    checkpoint(run)
    step = runs.step_to_resume(run)
    delete = shutil.rmtree

    def meanwhile(path):
        with pytest.raises(runs.NotResumable):
            runs.resume_run(run, from_step=step)
        delete(path)

    monkeypatch.setattr(shutil, "rmtree", meanwhile)
    purging.purge_artifacts(cutoff=long_ago())

    run.refresh_from_db()
    assert (run.status, run.purged_at is None) == (JobStatus.FAILED, False)


def test_a_checkpoint_is_verified_before_the_transaction_that_resumes(staff, monkeypatch, set_config):
    set_config("storage: {minimum_free_bytes: 0}")
    run = TrainingRunFactory(failed=True)
    write_checkpoint(run, 4)
    outside = len(connection.savepoint_ids)
    depths = []
    verify = resuming.verify
    monkeypatch.setattr(
        resuming, "verify", lambda path: (depths.append(len(connection.savepoint_ids)), verify(path))[1]
    )

    assert staff.post(f"/api/training/{run.pk}/resume").status_code == 200
    assert depths == [outside]
