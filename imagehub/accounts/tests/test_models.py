from datetime import timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.utils import timezone

from imagehub.accounts.models import ApiToken, Scope, validate_scopes
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


class TestScopes:
    @pytest.mark.parametrize(
        ("scopes", "granted"),
        [
            ([], set()),
            (["read"], {"read"}),
            (["train"], {"read", "train"}),
            (["generate", "scrape"], {"read", "generate", "scrape"}),
            (["admin"], {"read", "generate", "train", "scrape", "admin"}),
        ],
    )
    def test_grant_reading_and_themselves_and_admin_everything(self, scopes, granted):
        token = ApiToken(scopes=scopes)

        assert {scope.value for scope in Scope if token.grants(scope)} == granted

    @pytest.mark.parametrize(
        "value", [[], None, "read", {"read": 1}, ["root"], ["read", "read"], [["read"]], [None]]
    )
    def test_are_one_or_more_that_are_known(self, value):
        with pytest.raises(ValidationError):
            validate_scopes(value)

    def test_of_tokens_that_are_older_than_scopes_are_everything(self):
        migration = import_module("imagehub.accounts.migrations.0002_scopes_and_audit")
        ApiTokenFactory(scopes=[])

        migration.keep_tokens_working(apps, None)

        assert ApiToken.objects.get().scopes == ["admin"]
