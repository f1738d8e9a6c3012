import pytest

from albums.models import Image
from albums.services import purge_images, trash_images
from imagehub.accounts.tests.factories import UserFactory
from imagehub.in_use import InUse
from imagehub.jobs.models import JobStatus
from training.models import BaseModel, TrainingRun
from training.services.datasets import snapshot
from training.tests.datasets.albums import FEW, RECIPE, captioned_album

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(set_config):
    set_config(FEW)
    owner = UserFactory(staff=True)
    return TrainingRun.objects.create(
        owner=owner,
        name="hearts",
        base_model=BaseModel.objects.get(name="starter"),
        dataset=snapshot([captioned_album(4)], RECIPE, owner),
        config=RECIPE.model_dump(mode="json"),
        config_sha256=RECIPE.digest(),
    )


def purge(run):
    ids = list(run.dataset.images.values_list("image_id", flat=True))
    trash_images(ids)
    purge_images(ids)


def test_what_an_unfinished_run_learns_from_is_not_purged(run):
    with pytest.raises(InUse, match="training run"):
        purge(run)


def test_what_a_finished_run_has_learned_from_is_and_the_data_set_stays(run):
    TrainingRun.objects.filter(pk=run.pk).request_cancel()
    assert TrainingRun.objects.get().status == JobStatus.CANCELLED

    purge(run)

    assert not Image.objects.exists()
    assert set(run.dataset.images.values_list("image_id", flat=True)) == {None}
    assert run.dataset.images.count() == 4
