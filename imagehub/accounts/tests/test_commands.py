from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from imagehub.accounts.models import ApiToken
from imagehub.accounts.services import find_token
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


class TestCreateToken:
    def test_prints_the_token_alone_on_the_last_line(self, capsys):
        call_command("create_token", "--email", "ada@example.com")

        printed = capsys.readouterr()
        secret = printed.out.splitlines()[-1]
        assert find_token(secret, timezone.now()).user.username == "ada@example.com"
        assert secret not in printed.err
        assert "Created the user ada@example.com (not staff)" in printed.err

    def test_makes_staff_when_asked(self, capsys):
        call_command("create_token", "--email", "ada@example.com", "--staff")

        assert User.objects.get().is_staff
        assert "(staff)" in capsys.readouterr().err

    def test_adds_tokens_to_one_user(self, capsys):
        for name in ("laptop", "server"):
            call_command("create_token", "--email", "ada@example.com", "--name", name)

        assert User.objects.count() == 1
        assert set(ApiToken.objects.values_list("name", flat=True)) == {"laptop", "server"}
        assert "Found the user" in capsys.readouterr().err

    def test_sets_the_time_of_expiry(self):
        call_command("create_token", "--email", "ada@example.com", "--days", "30")

        assert timedelta(days=29) < ApiToken.objects.get().expires_at - timezone.now() <= timedelta(days=30)

    def test_gives_the_scopes_that_are_named(self):
        call_command("create_token", "--email", "ada@example.com", "--scope", "train", "--scope", "read")

        assert ApiToken.objects.get().scopes == ["read", "train"]

    def test_gives_all_the_user_may_do_by_default(self):
        call_command("create_token", "--email", "ada@example.com")

        assert ApiToken.objects.get().scopes == ["admin"]

    def test_refuses_a_scope_that_does_not_exist(self):
        with pytest.raises(CommandError, match="--scope"):
            call_command("create_token", "--email", "ada@example.com", "--scope", "root")

    def test_makes_tokens_that_do_not_expire_by_default(self):
        call_command("create_token", "--email", "ada@example.com")

        assert ApiToken.objects.get().expires_at is None

    @pytest.mark.parametrize("days", ["0", "-1", "1.5", "nan", "3651", "9" * 5000, "٣"])
    def test_refuses_days_that_make_no_sense(self, days):
        with pytest.raises(CommandError, match="--days"):
            call_command("create_token", "--email", "ada@example.com", f"--days={days}")

    def test_refuses_what_is_no_address(self):
        with pytest.raises(CommandError, match="not an e-mail address"):
            call_command("create_token", "--email", "ada")

    @pytest.mark.parametrize("name", ["", "x" * 101])
    def test_refuses_a_name_that_does_not_fit(self, name):
        with pytest.raises(CommandError, match="name"):
            call_command("create_token", "--email", "ada@example.com", "--name", name)

    def test_refuses_a_deactivated_user(self):
        UserFactory(username="ada@example.com", deactivated=True)

        with pytest.raises(CommandError, match="deactivated"):
            call_command("create_token", "--email", "ada@example.com")

        assert not ApiToken.objects.exists()
