import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory

pytestmark = pytest.mark.django_db
LIST = "admin:accounts_apitoken_changelist"


@pytest.fixture
def admin(client):
    client.force_login(User.objects.create_superuser("root"))
    return client


class TestApiTokenAdmin:
    def test_lists_tokens_with_a_fixed_number_of_queries(self, admin, django_assert_max_num_queries):
        tokens = [ApiTokenFactory() for _ in range(12)]

        with django_assert_max_num_queries(8):
            page = admin.get(reverse(LIST)).text

        assert all(token.user.username in page for token in tokens)

    def test_shows_a_token_without_its_digest(self, admin):
        token = ApiTokenFactory()

        page = admin.get(reverse("admin:accounts_apitoken_change", args=[token.pk])).text

        assert token.prefix in page
        assert token.digest not in page

    def test_changes_nothing_by_hand(self, admin):
        token = ApiTokenFactory(name="before", revoked_at=timezone.now())

        admin.post(
            reverse("admin:accounts_apitoken_change", args=[token.pk]), {"name": "after", "revoked_at_0": ""}
        )

        token.refresh_from_db()
        assert token.name == "before"
        assert token.revoked_at is not None

    def test_creates_nothing(self, admin):
        assert admin.get(reverse("admin:accounts_apitoken_add")).status_code == 403

    def test_revokes_the_selected_tokens(self, admin):
        chosen, other = ApiTokenFactory(), ApiTokenFactory()

        admin.post(reverse(LIST), {"action": "revoke", "_selected_action": [str(chosen.pk)]})

        chosen.refresh_from_db()
        other.refresh_from_db()
        assert chosen.revoked_at is not None
        assert other.revoked_at is None

    def test_lets_staff_revoke_a_token(self, client):
        client.force_login(UserFactory(staff=True))
        token = ApiTokenFactory()

        client.post(reverse(LIST), {"action": "revoke", "_selected_action": [str(token.pk)]})

        token.refresh_from_db()
        assert token.revoked_at is not None

    def test_is_closed_to_who_is_not_staff(self, client):
        client.force_login(UserFactory())

        assert client.get(reverse(LIST)).status_code == 302


class TestAuditEntryAdmin:
    def test_shows_the_trail_and_lets_nobody_change_it(self, admin):
        entry = AuditEntry.objects.newest_first().first()  # that `admin` signed in
        url = reverse("admin:accounts_auditentry_change", args=[entry.pk])

        assert "sign_in" in admin.get(reverse("admin:accounts_auditentry_changelist")).text
        assert "sign_in" in admin.get(url).text
        assert admin.post(url, {"action": "nothing"}).status_code == 403
        assert admin.post(url.replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
        assert admin.get(reverse("admin:accounts_auditentry_add")).status_code == 403

    def test_offers_no_action_that_deletes(self, admin):
        entry = AuditEntry.objects.newest_first().first()

        admin.post(
            reverse("admin:accounts_auditentry_changelist"),
            {"action": "delete_selected", "_selected_action": [str(entry.pk)], "post": "yes"},
        )

        assert AuditEntry.objects.filter(pk=entry.pk).exists()
