import factory

from generation.models import GenerationJob
from imagehub.accounts.tests.factories import UserFactory
from imagehub.roots import models_root
from imagehub.tests.canaries import CANARY
from training.models import Architecture, BaseModel
from training.tests.factories import AdapterFactory


def starter_model() -> BaseModel:
    """The row a migration makes; tests that commit take it away from those after them."""
    return BaseModel.objects.get_or_create(
        name="starter",
        defaults={
            "kind": BaseModel.Kind.BUNDLED,
            "source": "starter",
            "default_width": 64,
            "default_height": 64,
            "default_steps": 25,
        },
    )[0]


class ReadyAdapterFactory(AdapterFactory):
    """An adapter whose file is there, though nothing is in it that could be found not to fit a model."""

    size_bytes = 1
    architecture = Architecture.OTHER

    @factory.post_generation
    def file(adapter, create, extracted, **kwargs):  # noqa: N805 - factory_boy's way
        path = models_root() / adapter.source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


class GenerationJobFactory(factory.django.DjangoModelFactory):
    """A job for two small steps on whatever base model the test has; not saved by ``build``."""

    class Meta:
        model = GenerationJob

    owner = factory.SubFactory(UserFactory, staff=True)
    prompt = f"a red heart on a white background, {CANARY}"
    negative_prompt = f"a blur, {CANARY}"
    seed = 1
    steps = 2
    width = 64
    height = 64
    guidance_scale = 4.0
    base_model = factory.LazyFunction(starter_model)
