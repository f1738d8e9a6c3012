import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from imagehub.accounts import services
from imagehub.accounts.models import ApiToken
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.errors import Invalid

pytestmark = pytest.mark.django_db
NOW = timezone.now()


class TestCreateToken:
    def test_returns_a_secret_that_finds_the_token(self):
        token, secret = services.create_token(UserFactory(), name="mine", expires_at=None)

        assert re.fullmatch(r"ih_[A-Za-z0-9_-]{43}", secret)
        assert services.find_token(secret, NOW) == token

    def test_stores_the_secret_nowhere(self):
        token, secret = services.create_token(UserFactory(), name="mine", expires_at=None)

        row = ApiToken.objects.values().get(pk=token.pk)
        assert all(secret not in str(value) for value in row.values())
        assert row["prefix"] == secret[:8]

    def test_draws_another_secret_each_time(self):
        user = UserFactory()

        secrets = {services.create_token(user, name="mine", expires_at=None)[1] for _ in range(20)}

        assert len(secrets) == 20

    def test_refuses_a_time_of_expiry_in_the_past(self):
        with pytest.raises(Invalid) as caught:
            services.create_token(UserFactory(), name="mine", expires_at=NOW - timedelta(days=1))

        assert caught.value.pointer == "/expires_at"


class TestFindToken:
    @pytest.mark.parametrize("secret", ["", "ih_unknown", "\udcff", "ih_" + "x" * 100_000])
    def test_finds_nothing_for_an_unknown_secret(self, secret):
        ApiTokenFactory()

        assert services.find_token(secret, NOW) is None

    def test_finds_no_token_by_what_is_stored(self):
        token = ApiTokenFactory()

        assert services.find_token(token.digest, NOW) is None

    def test_finds_no_token_that_is_not_usable(self):
        ApiTokenFactory(secret="revoked", revoked_at=NOW)

        assert services.find_token("revoked", NOW) is None

    def test_brings_the_user_along_in_one_query(self, django_assert_num_queries):
        ApiTokenFactory(secret="s3cret")

        with django_assert_num_queries(1):
            assert services.find_token("s3cret", NOW).user.is_active


class TestNoteUse:
    def test_writes_when_the_token_was_never_used(self):
        token = ApiTokenFactory()

        services.note_use(token, NOW)

        token.refresh_from_db()
        assert token.last_used_at == NOW

    def test_writes_nothing_within_a_minute(self, django_assert_num_queries):
        token = ApiTokenFactory(last_used_at=NOW - timedelta(seconds=59))

        with django_assert_num_queries(0):
            services.note_use(token, NOW)

    def test_writes_again_after_a_minute(self):
        token = ApiTokenFactory(last_used_at=NOW - timedelta(seconds=60))

        services.note_use(token, NOW)

        token.refresh_from_db()
        assert token.last_used_at == NOW

    def test_leaves_what_another_request_has_just_written(self):
        token = ApiTokenFactory()
        just_now = NOW - timedelta(seconds=1)
        ApiToken.objects.update(last_used_at=just_now)

        services.note_use(token, NOW)

        token.refresh_from_db()
        assert token.last_used_at == just_now


class TestRevokeToken:
    def test_makes_the_token_useless(self):
        token = ApiTokenFactory(secret="s3cret")

        assert services.revoke_token(token) is True
        assert services.find_token("s3cret", timezone.now()) is None

    def test_keeps_the_first_time_when_it_is_called_again(self):
        token = ApiTokenFactory(revoked_at=NOW)

        assert services.revoke_token(token) is False

        token.refresh_from_db()
        assert token.revoked_at == NOW


class TestFindOrCreateUser:
    def test_creates_a_user_who_cannot_sign_in_by_password(self):
        user, is_new = services.find_or_create_user(" Ada@Example.com ")

        assert is_new
        assert (user.username, user.email, user.is_staff) == ("ada@example.com", "ada@example.com", False)
        assert not user.has_usable_password()

    @pytest.mark.parametrize(
        "existing",
        [{"username": "ada@example.com", "email": ""}, {"username": "ada", "email": "Ada@Example.com"}],
    )
    def test_finds_a_user_by_name_or_address(self, existing):
        user = UserFactory(**existing)

        assert services.find_or_create_user("ada@example.COM") == (user, False)

    def test_leaves_the_password_of_a_user_it_finds(self):
        user = User.objects.create_user("ada@example.com", "ada@example.com", "correct horse")

        services.find_or_create_user("ada@example.com")

        user.refresh_from_db()
        assert user.check_password("correct horse")

    def test_makes_staff_of_a_user_it_finds(self):
        UserFactory(username="ada@example.com")

        services.find_or_create_user("ada@example.com", is_staff=True)

        assert User.objects.get().is_staff

    def test_never_takes_staff_away(self):
        UserFactory(username="ada@example.com", staff=True)

        services.find_or_create_user("ada@example.com")

        assert User.objects.get().is_staff

    @pytest.mark.parametrize("email", ["", "ada", "ada@", "a b@example.com", "a@" + "b." * 75 + "com"])
    def test_refuses_what_is_no_address(self, email):
        with pytest.raises(Invalid) as caught:
            services.find_or_create_user(email)

        assert caught.value.pointer == "/email"
        assert not User.objects.exists()

    def test_refuses_to_choose_between_two_users(self):
        UserFactory(username="ada1", email="ada@example.com")
        UserFactory(username="ada2", email="ada@example.com")

        with pytest.raises(services.AmbiguousUser):
            services.find_or_create_user("ada@example.com")

    def test_refuses_a_deactivated_user(self):
        UserFactory(username="ada@example.com", deactivated=True)

        with pytest.raises(services.UserDeactivated):
            services.find_or_create_user("ada@example.com", is_staff=True)

        assert not User.objects.get().is_staff
