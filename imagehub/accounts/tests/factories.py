import hashlib

import factory
from django.contrib.auth.models import User

from imagehub.accounts.models import PREFIX_LENGTH, ApiToken, Scope
from imagehub.tests.canaries import CANARY


class UserFactory(factory.django.DjangoModelFactory[User]):
    class Meta:
        model = User

    class Params:
        staff = factory.Trait(is_staff=True)
        deactivated = factory.Trait(is_active=False)

    username = factory.Sequence(lambda n: f"user{n}@example.com")
    email = factory.SelfAttribute("username")


class ApiTokenFactory(factory.django.DjangoModelFactory[ApiToken]):
    """A token whose secret the test chooses, or does not need."""

    class Meta:
        model = ApiToken

    class Params:
        secret = factory.Sequence(lambda n: f"ih_secret-of-a-token-{n}-{CANARY}")

    user = factory.SubFactory(UserFactory)
    name = "test"
    scopes = factory.List([Scope.ADMIN.value])
    prefix = factory.LazyAttribute(lambda token: token.secret[:PREFIX_LENGTH])
    digest = factory.LazyAttribute(lambda token: hashlib.sha256(token.secret.encode()).hexdigest())
