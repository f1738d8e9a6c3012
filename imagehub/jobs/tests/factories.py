import factory
from django.utils import timezone

from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tests.errands.models import Errand


class ErrandFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Errand

    owner = factory.SubFactory(UserFactory)
    status = JobStatus.QUEUED
    queued_at = factory.LazyFunction(timezone.now)
