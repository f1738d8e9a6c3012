"""Nothing more comes of pictures that were taken down, whatever lies in the folders of runs that had them."""

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from albums import lineage
from albums.lineage import Key
from albums.models import Image
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tasks import answer_doorbell
from training import tasks
from training.models import Adapter, Checkpoint, TrainingRun
from training.services import datasets
from training.services.preflight import preflight_of_run
from training.services.run_folders import folder_of
from training.tests.factories import TrainingRunFactory
from training.tests.test_results import checkpoint

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _room(set_config):
    set_config("storage: {minimum_free_bytes: 0}\ntraining: {max_active: 10, minimum_images: 1}")


def trash(run):
    Image.objects.filter(pk=run.dataset.images.first().image_id).update(deleted_at=timezone.now())


def purge(run):
    run.dataset.images.filter(position=0).update(image=None)


def forget(run):
    """As with runs that were imported: nobody knows their pictures."""
    run.dataset.images.all().delete()


def take_down(run):
    start = Key("image", str(run.dataset.images.first().image_id))
    for keys in lineage.walk_results(iter([start])):
        lineage.quarantine(keys, "a complaint")


def refused(answer):
    return answer.status_code == 422 and answer.json()["code"] == "missing_files"


@pytest.mark.parametrize("lose", [trash, purge, forget, take_down])
class TestRunsWhosePicturesAreGone:
    def test_are_not_started_and_their_preflight_says_so(self, staff, lose):
        run = TrainingRunFactory()
        lose(run)
        TrainingRun.objects.filter(pk=run.pk).update(status=JobStatus.PENDING, finished_at=None)

        assert refused(staff.post(f"/api/training/{run.pk}/start"))
        assert "missing_files" in {finding.code for finding in preflight_of_run(run).blockers}

    def test_are_not_resumed_cloned_or_made_into_adapters(self, staff, lose):
        run = TrainingRunFactory(failed=True)
        row = checkpoint(run)
        lose(run)

        assert refused(staff.post(f"/api/training/{run.pk}/resume"))
        assert refused(staff.post(f"/api/training/{run.pk}/clone"))
        assert refused(staff.post(f"/api/training/{run.pk}/checkpoints/{row.pk}/promote"))
        assert TrainingRun.objects.get().status == JobStatus.FAILED

    def test_fail_when_they_were_queued_already_whatever_lies_in_their_folder(self, lose):
        run = TrainingRunFactory(queued=True)
        folder = folder_of(run)
        datasets.materialise(run.dataset, folder)
        lose(run)
        TrainingRun.objects.filter(pk=run.pk).update(
            status=JobStatus.QUEUED, cancel_requested_at=None, finished_at=None
        )

        answer_doorbell(Cluster.TRAINING)

        run.refresh_from_db()
        assert (run.status, run.error_code) == (JobStatus.FAILED, "missing_files")
        assert not Adapter.objects.exists()


class TestATakedown:
    def test_ends_promotions_that_wait_and_deletes_the_pictures_of_the_run(
        self,
        staff,
        exports,
        django_capture_on_commit_callbacks,
    ):
        exports()
        run = TrainingRunFactory(failed=True)
        row = checkpoint(run)
        datasets.materialise(run.dataset, folder_of(run))
        staff.post(f"/api/training/{run.pk}/checkpoints/{row.pk}/promote")

        with django_capture_on_commit_callbacks(execute=True):
            lineage.quarantine([Key("training_run", str(run.pk))], "a complaint")

        row.refresh_from_db()
        assert (row.promotion, row.promotion_problem) == ("failed", "The run was taken down.")
        assert not folder_of(run).images.exists()
        assert tasks.promote_waiting() == 0
        assert not Adapter.objects.exists()

    def test_during_a_promotion_leaves_no_adapter(self, staff, exports, monkeypatch):
        from training.services import promoting

        exports()
        run = TrainingRunFactory(failed=True)
        row = checkpoint(run)
        promoting.promote_checkpoint(row, user=staff.user)
        export = promoting._export

        def meanwhile(*args):
            export(*args)
            lineage.quarantine([Key("training_run", str(run.pk))], "a complaint")

        monkeypatch.setattr(promoting, "_export", meanwhile)

        assert tasks.promote_waiting() == 0
        assert Checkpoint.objects.get().promotion == "failed"
        assert not Adapter.objects.exists()
        assert APIClient().get("/api/training/loras").json()["results"] == []
