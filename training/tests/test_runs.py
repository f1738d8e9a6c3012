"""The life of runs, told by their services."""

import pytest
from django.core.exceptions import ValidationError
from django.db.models.functions import Now
from django_q.models import OrmQ

from imagehub.accounts.tests.factories import UserFactory
from imagehub.concurrency import ConcurrencyLimit
from imagehub.errors import InvalidFields
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus, WorkerPresence
from imagehub.jobs.queue import is_ringing
from imagehub.tests.together import at_once
from training.models import BaseModel, ImageInspection, TrainingRun
from training.recipe import Recipe
from training.services import runs
from training.services.datasets import NotEnoughImages
from training.services.run_folders import folder_of
from training.tests.factories import TrainingRunFactory, starter_model
from training.trainer import checkpoint_files

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _few_images(set_config):
    set_config("training: {minimum_images: 2}\nstorage: {minimum_free_bytes: 0}\n")


def create(album, **fields) -> TrainingRun:
    said = {
        "owner": UserFactory(staff=True),
        "name": "zebras",
        "albums": [album],
        "base_model": starter_model(),
    }
    return runs.create_run(**said | fields)


def write_checkpoint(run, step):
    """Leave a checkpoint where a trainer would."""
    target = folder_of(run).checkpoints / checkpoint_files.folder_name(step)
    target.mkdir(parents=True)
    (target / checkpoint_files.ADAPTER).write_bytes(b"weights")
    content = {
        "version": checkpoint_files.VERSION,
        "step": step,
        "validation_loss": None,
        "progress": {},
        "files": {checkpoint_files.ADAPTER: checkpoint_files.describe(target / checkpoint_files.ADAPTER)},
    }
    (target / checkpoint_files.MANIFEST).write_bytes(checkpoint_files.manifest_bytes(content))
    return target


class TestCreate:
    def test_makes_a_pending_run_in_which_nothing_is_left_open(self, album, set_config):
        set_config("training: {minimum_images: 2, max_attempts: 5}")
        run = create(album, config={"steps": 60}, trigger_word="zbr")

        assert (run.status, run.total_steps, run.max_attempts) == (JobStatus.PENDING, 60, 5)
        assert run.config_sha256 == Recipe.model_validate(run.config).digest()
        assert run.dataset.images.count() == 2
        assert not OrmQ.objects.exists()

    def test_is_not_reached_by_later_changes_of_the_album(self, album):
        run = create(album)
        before = run.dataset.sha256

        album.memberships.all().delete()
        run.refresh_from_db()

        assert run.dataset.sha256 == before
        assert run.dataset.images.count() == 2

    def test_refuses_too_few_captioned_images_and_leaves_nothing(self, album, set_config):
        set_config("training: {minimum_images: 3}")

        with pytest.raises(NotEnoughImages):
            create(album)
        assert not TrainingRun.objects.exists()

    @pytest.mark.parametrize(
        "changes", [{"is_enabled": False}, {"problem": "Its weights are damaged."}, {"architecture": "flux"}]
    )
    def test_refuses_a_base_model_that_is_not_trained_on(self, album, changes):
        BaseModel.objects.filter(pk=starter_model().pk).update(**changes)

        with pytest.raises(runs.ModelUnusable):
            create(album, base_model=BaseModel.objects.get(name="starter"))

    def test_believes_workers_more_than_a_look_from_here(self, album):
        model = starter_model()
        BaseModel.objects.filter(pk=model.pk).update(problem="Its weights are not on this machine.")
        model.refresh_from_db()
        worker = WorkerPresence.objects.create(
            cluster=Cluster.TRAINING, host="a", pid=1, facts={"models": ["starter"]}
        )
        assert create(album, base_model=model).status == JobStatus.PENDING

        WorkerPresence.objects.filter(pk=worker.pk).update(facts={"models": []})
        with pytest.raises(runs.ModelUnusable, match="No live worker has"):
            create(album, base_model=model)

    def test_refuses_a_recipe_that_is_none(self, album):
        with pytest.raises(InvalidFields):
            create(album, config={"rank": 0})


class TestStart:
    def test_queues_it_and_rings(self, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks(execute=True):
            run = runs.start_run(TrainingRunFactory())

        assert run.status == JobStatus.QUEUED
        assert is_ringing(Cluster.TRAINING)

    def test_starts_each_run_once(self):
        run = runs.start_run(TrainingRunFactory())

        with pytest.raises(runs.NotStartable):
            runs.start_run(run)

    def test_refuses_a_second_one_while_one_is_under_way(self):
        runs.start_run(TrainingRunFactory())

        with pytest.raises(ConcurrencyLimit) as caught:
            runs.start_run(TrainingRunFactory())
        assert (caught.value.code, caught.value.limit) == ("concurrency_limit", 1)

    def test_one_whose_worker_is_gone_does_not_count(self):
        runs.start_run(TrainingRunFactory())
        lost = TrainingRun.objects.claim(worker="w")
        TrainingRun.objects.filter(pk=lost.pk).update(lease_until="2000-01-01T00:00:00Z")

        assert runs.start_run(TrainingRunFactory()).status == JobStatus.QUEUED

    def test_refuses_pictures_that_are_known_to_be_damaged(self):
        run = TrainingRunFactory()
        ImageInspection.objects.create(image=run.dataset.images.first().image, problem="unreadable")

        with pytest.raises(runs.NotTrainable) as caught:
            runs.start_run(run)
        assert caught.value.code == "unreadable_pictures"

    def test_refuses_what_does_not_fit_on_the_disk(self):
        folder_of(TrainingRunFactory()).root.mkdir(parents=True)
        run = TrainingRunFactory(estimate={"disk_bytes": 10**18})

        with pytest.raises(runs.NotTrainable) as caught:
            runs.start_run(run)
        assert caught.value.code == "disk_full"

    @pytest.mark.django_db(transaction=True)
    def test_of_many_at_once_as_many_start_as_may(self, set_config):
        set_config("training: {max_active: 2}")
        pending = TrainingRunFactory.create_batch(6)
        refused = []

        def start(run):
            try:
                runs.start_run(run)
            except ConcurrencyLimit:
                refused.append(run)

        at_once(start, pending)

        assert TrainingRun.objects.queued().count() == 2
        assert len(refused) == 4


class TestCancel:
    @pytest.mark.parametrize("fields", [{}, {"queued": True}])
    def test_ends_one_that_waits(self, fields):
        run = runs.cancel_run(TrainingRunFactory(**fields))

        assert run.status == JobStatus.CANCELLED

    def test_asks_one_that_runs_and_may_be_asked_again_to_discard(self):
        TrainingRunFactory(queued=True)
        run = TrainingRun.objects.claim(worker="w")

        assert runs.cancel_run(run).status == JobStatus.RUNNING
        assert run.stop_mode == "save"
        assert runs.cancel_run(run, TrainingRun.StopMode.DISCARD).stop_mode == "discard"

    def test_refuses_one_that_has_ended(self):
        run = TrainingRunFactory(failed=True)

        with pytest.raises(runs.AlreadyFinished):
            runs.cancel_run(run)


class TestResume:
    def test_queues_it_again_with_new_attempts(self):
        run = TrainingRunFactory(failed=True, error_code="training_bug", error_detail="x", attempt=3)
        write_checkpoint(run, 4)

        run = runs.resume_run(run)

        assert (run.status, run.attempt, run.max_attempts) == (JobStatus.QUEUED, 3, 6)
        assert (run.error_code, run.error_detail, run.finished_at) == ("", "", None)

    def test_may_have_more_steps(self):
        run = TrainingRunFactory(failed=True)
        write_checkpoint(run, 10)

        run = runs.resume_run(run, steps=30)

        assert (run.total_steps, run.config["steps"]) == (30, 30)
        assert run.config_sha256 == Recipe.model_validate(run.config).digest()

    def test_needs_a_checkpoint_and_takes_an_earlier_one_than_the_damaged(self):
        run = TrainingRunFactory(failed=True)
        with pytest.raises(runs.NotResumable):
            runs.resume_run(run)

        write_checkpoint(run, 4)
        (write_checkpoint(run, 8) / checkpoint_files.ADAPTER).write_bytes(b"weighty")
        with pytest.raises(InvalidFields):
            runs.resume_run(run, steps=3)
        assert runs.resume_run(run).status == JobStatus.QUEUED

    @pytest.mark.parametrize("fields", [{}, {"queued": True}])
    def test_refuses_one_that_has_not_ended_so(self, fields):
        with pytest.raises(runs.NotResumable):
            runs.resume_run(TrainingRunFactory(**fields))

    def test_refuses_one_whose_files_are_gone(self):
        run = TrainingRunFactory(failed=True, purged_at=Now())
        run.refresh_from_db()

        with pytest.raises(runs.Purged):
            runs.resume_run(run)

    def test_counts_among_those_under_way(self):
        runs.start_run(TrainingRunFactory())
        run = TrainingRunFactory(failed=True)
        write_checkpoint(run, 4)

        with pytest.raises(ConcurrencyLimit):
            runs.resume_run(run)
        run.refresh_from_db()
        assert run.status == JobStatus.FAILED


class TestClone:
    def test_is_pending_with_the_same_recipe_and_pictures(self):
        run = TrainingRunFactory(failed=True, recipe={"seed": 7, "rank": 3})
        other = UserFactory(staff=True)

        clone = runs.clone_run(run, owner=other, name="again")

        assert (clone.status, clone.attempt, clone.name, clone.owner) == (
            JobStatus.PENDING,
            0,
            "again",
            other,
        )
        assert (clone.config, clone.dataset, clone.cloned_from) == (run.config, run.dataset, run)
        assert clone.trigger_word == run.trigger_word


class TestChange:
    def test_changes_what_people_may_change(self):
        run = runs.change_run(TrainingRunFactory(queued=True), name="stripes", priority=5)

        assert (run.name, run.priority, run.status) == ("stripes", 5, JobStatus.QUEUED)

    def test_refuses_anything_else(self):
        with pytest.raises(TypeError):
            runs.change_run(TrainingRunFactory(), status="completed")
        with pytest.raises(ValidationError):
            runs.change_run(TrainingRunFactory(), name="x" * 500)
