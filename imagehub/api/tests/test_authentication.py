from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from imagehub.accounts.models import ApiToken
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory

pytestmark = [pytest.mark.django_db, pytest.mark.urls("imagehub.api.tests.urls")]
SECRET = "ih_0123456789abcdef"


def post(client, authorization, path="/api/body"):
    return client.post(path, {}, content_type="application/json", headers={"Authorization": authorization})


def make_token(**values):
    return ApiTokenFactory(**{"user": UserFactory(staff=True), "secret": SECRET} | values)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_signs_in_and_needs_no_csrf_token(scheme):
    make_token()

    assert post(Client(enforce_csrf_checks=True), f"{scheme} {SECRET}").status_code == 200


class TestRefusal:
    def refused(self, response):
        assert response.status_code == 401
        assert response["Content-Type"] == "application/problem+json"
        assert response["WWW-Authenticate"] == 'Bearer realm="ImageHub", error="invalid_token"'
        problem = response.json()
        assert problem["code"] == "invalid_token"
        assert SECRET not in response.text
        return problem["detail"]

    def test_is_the_same_for_all_tokens_that_are_no_good(self, client):
        hour = timedelta(hours=1)
        past = timezone.now() - hour
        make_token(secret="expired", created_at=past - hour, expires_at=past)
        make_token(secret="revoked", revoked_at=past)
        make_token(secret="deactivated", user=UserFactory(staff=True, deactivated=True))

        details = {
            self.refused(post(client, f"Bearer {secret}"))
            for secret in ("expired", "revoked", "deactivated", "unknown")
        }

        assert len(details) == 1

    @pytest.mark.parametrize(
        "header",
        ["Bearer", "Bearer ", f"Bearer {SECRET} x", f"Bearer x {SECRET}", "Bearer \xff\xfe", "Bearer \x00"],
    )
    def test_includes_a_header_that_is_malformed(self, client, header):
        make_token()

        self.refused(post(client, header))

    def test_is_not_undone_by_a_session(self, client):
        client.force_login(UserFactory(staff=True))

        self.refused(post(client, "Bearer wrong"))

    def test_holds_for_what_everybody_may_see(self, client):
        self.refused(client.get("/api/tokens", headers={"Authorization": "Bearer wrong"}))

    def test_acts_at_once_when_a_user_is_deactivated(self, client):
        token = make_token()
        assert post(client, f"Bearer {SECRET}").status_code == 200

        token.user.is_active = False
        token.user.save()

        self.refused(post(client, f"Bearer {SECRET}"))


@pytest.mark.parametrize("header", [f"Token {SECRET}", f"Basic {SECRET}", SECRET, f"Bearerx {SECRET}", ""])
def test_other_schemes_are_left_to_others(client, header):
    make_token()
    client.force_login(UserFactory(staff=True))

    assert post(client, header).status_code == 200


def test_the_time_of_use_is_noted_once_a_minute(client, django_assert_num_queries):
    token = make_token()
    with django_assert_num_queries(2):
        post(client, f"Bearer {SECRET}")
    noted = ApiToken.objects.get(pk=token.pk).last_used_at
    assert timezone.now() - noted < timedelta(minutes=1)

    with django_assert_num_queries(1):
        post(client, f"Bearer {SECRET}")

    assert ApiToken.objects.get(pk=token.pk).last_used_at == noted


def test_a_token_that_is_refused_is_not_noted_as_used(client):
    token = make_token(revoked_at=timezone.now())

    post(client, f"Bearer {SECRET}")

    token.refresh_from_db()
    assert token.last_used_at is None
