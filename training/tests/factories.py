import hashlib
from datetime import UTC

import factory

from albums.tests.factories import ImageFactory
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.roots import models_root
from imagehub.tests.canaries import CANARY
from training.models import Adapter, Architecture, BaseModel, Dataset, DatasetImage, Role, TrainingRun
from training.recipe import Recipe
from training.services.datasets import manifest_of_rows
from training.tests.weight_headers import write_sd1_adapter


class AdapterFactory(factory.django.DjangoModelFactory):
    """An adapter of Stable Diffusion 1; with ``on_disk`` its file is really there."""

    class Meta:
        model = Adapter
        skip_postgeneration_save = True

    name = factory.Sequence(lambda n: f"adapter {n}")
    source = factory.Sequence(lambda n: f"loras/adapter-{n}.safetensors")
    sha256 = factory.LazyAttribute(lambda adapter: hashlib.sha256(adapter.source.encode()).hexdigest())
    size_bytes = 1000
    architecture = Architecture.SD1
    layout = Adapter.Layout.KOHYA
    rank = 4
    alpha = 2.0
    targets = factory.LazyFunction(lambda: {"unet": 2})

    @factory.post_generation
    def on_disk(adapter, create, is_there, **options):  # noqa: N805 - factory_boy's way
        if is_there:
            path = write_sd1_adapter(models_root() / adapter.source, mark=adapter.name, **options)
            adapter.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            adapter.size_bytes = path.stat().st_size
            adapter.save()


def starter_model() -> BaseModel:
    """The row a migration makes; tests that commit take it away from those after them."""
    return BaseModel.objects.get_or_create(
        name="starter",
        defaults={
            "kind": BaseModel.Kind.BUNDLED,
            "source": "starter",
            "architecture": Architecture.OTHER,
            "default_width": 64,
            "default_height": 64,
            "default_steps": 25,
        },
    )[0]


def make_dataset(owner, *, images) -> Dataset:
    """Write down a data set of images as they are, without looking at their albums."""
    rows = [
        DatasetImage(
            image=image,
            sha256=image.sha256,
            storage_name=image.storage_name,
            caption=f"picture {number} of a zebra, {CANARY}",
            role=Role.TRAIN,
            width=image.width,
            height=image.height,
            bucket_width=64,
            bucket_height=64,
        )
        for number, image in enumerate(images)
    ]
    dataset = Dataset.objects.create(
        owner=owner, albums=[{"id": "1", "name": "zebras"}], sha256=manifest_of_rows(rows).digest()
    )
    for position, row in enumerate(sorted(rows, key=lambda row: (row.sha256, row.caption))):
        row.dataset, row.position = dataset, position
        row.save()
    return dataset


class TrainingRunFactory(factory.django.DjangoModelFactory):
    """A pending run of ten steps on two pictures; ``recipe`` changes fields of its recipe."""

    class Meta:
        model = TrainingRun

    class Params:
        recipe = factory.LazyFunction(dict)
        queued = factory.Trait(status=JobStatus.QUEUED, queued_at=factory.Faker("date_time", tzinfo=UTC))
        failed = factory.Trait(
            status=JobStatus.FAILED, attempt=1, finished_at=factory.Faker("date_time", tzinfo=UTC)
        )

    owner = factory.SubFactory(UserFactory, staff=True)
    name = factory.Sequence(lambda n: f"run {n}")
    base_model = factory.LazyFunction(starter_model)
    trigger_word = "zbr"
    dataset = factory.LazyAttribute(lambda run: make_dataset(run.owner, images=ImageFactory.create_batch(2)))
    config = factory.LazyAttribute(
        lambda run: Recipe(
            **{"steps": 10, "resolution": 64, "bucket_step": 8, "sample_prompts": (f"a zebra, {CANARY}",)}
            | run.recipe
        ).model_dump(mode="json")
    )
    config_sha256 = factory.LazyAttribute(lambda run: Recipe.model_validate(run.config).digest())
    total_steps = factory.LazyAttribute(lambda run: run.config["steps"])
