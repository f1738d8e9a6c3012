from datetime import timedelta

import pytest
from django.db import IntegrityError
from django.utils import timezone

from imagehub.accounts.models import ApiToken
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory

pytestmark = pytest.mark.django_db
NOW = timezone.now()
HOUR = timedelta(hours=1)


class TestUsable:
    def test_keeps_a_token_that_does_not_expire(self):
        token = ApiTokenFactory()

        assert list(ApiToken.objects.usable(now=NOW)) == [token]

    def test_keeps_a_token_until_the_moment_it_expires(self):
        ApiTokenFactory(created_at=NOW - HOUR, expires_at=NOW)

        assert ApiToken.objects.usable(now=NOW - timedelta(microseconds=1)).exists()
        assert not ApiToken.objects.usable(now=NOW).exists()

    def test_leaves_out_a_revoked_token(self):
        ApiTokenFactory(revoked_at=NOW)

        assert not ApiToken.objects.usable(now=NOW).exists()

    def test_leaves_out_a_token_of_a_deactivated_user(self):
        ApiTokenFactory(user=UserFactory(deactivated=True))

        assert not ApiToken.objects.usable(now=NOW).exists()


class TestConstraints:
    def test_refuse_a_second_row_for_one_secret(self):
        ApiTokenFactory(secret="the same one")

        with pytest.raises(IntegrityError):
            ApiTokenFactory(secret="the same one")

    def test_refuse_a_token_that_expires_before_it_is_created(self):
        with pytest.raises(IntegrityError):
            ApiTokenFactory(created_at=NOW, expires_at=NOW)


def test_a_token_is_deleted_with_its_user():
    token = ApiTokenFactory()

    token.user.delete()

    assert not ApiToken.objects.exists()
