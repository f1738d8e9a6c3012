import factory

from generation.models import GenerationJob
from imagehub.accounts.tests.factories import UserFactory
from imagehub.tests.canaries import CANARY
from training.models import BaseModel


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
