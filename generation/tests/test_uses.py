"""What generation uses is not deleted under its hands."""

import pytest
from django.utils import timezone

from albums.models import Image, ImageLora
from albums.tests.factories import ImageFactory
from generation.models import GenerationJob
from generation.tests.factories import GenerationJobFactory
from imagehub.in_use import InUse, in_use
from imagehub.jobs.models import JobStatus
from training import services
from training.models import Adapter, BaseModel
from training.tests.factories import AdapterFactory

pytestmark = pytest.mark.django_db


def stack_of(*adapters):
    return [{"id": str(adapter.pk), "name": adapter.name, "weight": 1.0} for adapter in adapters]


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.PENDING])
def test_a_job_that_has_not_ended_keeps_its_adapters(status):
    adapter, other = AdapterFactory(), AdapterFactory()
    queued = {"queued_at": timezone.now()} if status == JobStatus.QUEUED else {}
    GenerationJobFactory(status=status, loras=stack_of(adapter), **queued)

    with pytest.raises(InUse, match="job that has not ended"):
        services.delete_adapter(adapter)
    services.delete_adapter(other)

    assert list(Adapter.objects.all()) == [adapter]


def test_a_job_that_has_ended_without_an_image_keeps_nothing():
    adapter = AdapterFactory()
    GenerationJobFactory(status=JobStatus.CANCELLED, finished_at=timezone.now(), loras=stack_of(adapter))

    services.delete_adapter(adapter)

    assert not Adapter.objects.exists()


def test_each_adapter_is_told_by_what_it_is_used():
    by_image, by_job, unused = AdapterFactory(), AdapterFactory(), AdapterFactory()
    ImageLora.objects.create(image=ImageFactory(), lora_id=str(by_image.pk))
    GenerationJobFactory(status=JobStatus.QUEUED, queued_at=timezone.now(), loras=stack_of(by_image, by_job))

    found = in_use(Adapter, [by_image.pk, by_job.pk, unused.pk])

    assert {key: "Images" in reason for key, reason in found.items()} == {by_image.pk: True, by_job.pk: False}


def test_a_base_model_that_a_job_names_is_kept():
    job = GenerationJobFactory(status=JobStatus.CANCELLED, finished_at=timezone.now())

    with pytest.raises(InUse, match="disable it instead"):
        services.delete_base_model(job.base_model)

    assert BaseModel.objects.filter(pk=job.base_model_id).exists()


def test_a_base_model_that_an_image_names_is_kept_where_it_is():
    model = BaseModel.objects.create(name="old", kind=BaseModel.Kind.HUB, source="org/old")
    ImageFactory(base_model="old", deleted_at=timezone.now())

    with pytest.raises(InUse, match="Images were made with it"):
        services.delete_base_model(model)
    with pytest.raises(InUse, match="Images were made with it"):
        services.update_base_model(model, source="org/new")

    assert BaseModel.objects.get(name="old").source == "org/old"


def test_an_image_that_a_job_is_to_start_from_is_in_use_until_the_job_has_ended():
    image = ImageFactory()
    job = GenerationJobFactory(init_image=image, strength=0.5)

    assert in_use(Image, [image.pk]) == {image.pk: "A job that has not ended starts from it."}
    GenerationJob.objects.filter(pk=job.pk).request_cancel()
    assert in_use(Image, [image.pk]) == {}
