import factory
from django.contrib.auth import get_user_model
from django.utils import timezone

from imagehub.jobs.models import JobStatus
from imagehub.jobs.tests.errands.models import Errand


class UserFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = get_user_model()

    username = factory.Sequence(lambda n: f"user{n}")


class ErrandFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Errand

    owner = factory.SubFactory(UserFactory)
    status = JobStatus.QUEUED
    queued_at = factory.LazyFunction(timezone.now)
