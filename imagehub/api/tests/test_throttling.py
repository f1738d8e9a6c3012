"""When a view charges, what it gives back, and what it answers."""

import pytest
from django.test import RequestFactory
from rest_framework.test import APIClient

from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.tests.errands.models import Errand
from imagehub.rate_limits import charge

pytestmark = [pytest.mark.django_db, pytest.mark.urls("imagehub.api.tests.urls")]


@pytest.fixture(autouse=True)
def _limits(set_config):
    set_config(
        "rate_limits: {labeling: {limit: 5, window_seconds: 3600}, upload: {limit: 2, window_seconds: 3600}}"
    )


@pytest.fixture
def user():
    return UserFactory(staff=True)


@pytest.fixture
def client(user):
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(user)
    return client


def used(user, group="labeling") -> int:
    return charge(group, f"user:{user.pk}", cost=0).used


class TestLate:
    def test_an_accepted_call_is_charged_its_cost_and_says_what_is_left(self, client, user):
        response = client.post("/api/limited", {"count": 2})

        assert (response.status_code, used(user)) == (201, 2)
        assert (response["RateLimit-Limit"], response["RateLimit-Remaining"]) == ("5", "3")
        assert 0 < int(response["RateLimit-Reset"]) <= 3600
        assert "Retry-After" not in response

    def test_what_does_not_fit_is_a_429_that_leaves_no_row(self, client, user):
        client.post("/api/limited", {"count": 4})
        response = client.post("/api/limited", {"count": 2})

        assert (response.status_code, response["Content-Type"]) == (429, "application/problem+json")
        problem = response.json()
        assert (problem["code"], problem["limit"], problem["window_seconds"]) == ("rate_limited", 5, 3600)
        assert problem["retry_after"] == int(response["Retry-After"]) == int(response["RateLimit-Reset"])
        assert 0 < problem["retry_after"] <= 3600
        assert (response["RateLimit-Limit"], response["RateLimit-Remaining"]) == ("5", "1")
        assert Errand.objects.count() == 1
        assert used(user) == 4
        assert client.post("/api/limited", {"count": 1}).status_code == 201

    @pytest.mark.parametrize(
        ("kind", "status"), [("conflict", 409), ("not-ready", 422), ("integrity", 409), ("bug", 500)]
    )
    def test_what_fails_after_the_charge_is_given_back(self, client, user, kind, status):
        response = client.post("/api/limited", {"text": kind})

        assert (response.status_code, Errand.objects.count(), used(user)) == (status, 0, 0)
        assert "RateLimit-Limit" not in response

    def test_every_other_refusal_comes_first(self, client, user):
        client.post("/api/limited", {"count": 5})
        anonymous, visitor = APIClient(), APIClient()
        visitor.force_authenticate(UserFactory())

        assert anonymous.post("/api/limited", {}).status_code == 401
        assert visitor.post("/api/limited", {}).status_code == 403
        assert client.put("/api/limited", {}).status_code == 405
        assert client.post("/api/limited", {"count": "x"}).status_code == 400
        assert client.post("/api/limited", "x", content_type="text/plain").status_code == 415
        assert client.post("/api/limited", {}).status_code == 429
        assert used(user) == 5

    def test_reading_is_not_limited(self, client, user):
        assert all(client.get("/api/limited").status_code == 200 for _ in range(6))
        assert used(user) == 0

    def test_a_limit_of_zero_is_none(self, client, set_config):
        set_config("rate_limits: {labeling: {limit: 0, window_seconds: 60}}")

        responses = [client.post("/api/limited", {}) for _ in range(12)]

        assert {response.status_code for response in responses} == {201}
        assert "RateLimit-Limit" not in responses[0]


class TestBeforeTheBody:
    def test_refuses_before_it_reads(self, user):
        from imagehub.api.tests.urls import EarlyLimitedView

        class NeverRead:
            def read(self, *_):
                raise AssertionError("the body was read")

        def post(body):
            request = RequestFactory().post("/api/early-limited", body, content_type="application/json")
            request._force_auth_user = user
            return request

        for _ in range(2):
            assert EarlyLimitedView.as_view()(post("{}")).status_code == 201
        request = post("{}")
        request._stream = NeverRead()
        assert EarlyLimitedView.as_view()(request).status_code == 429

    def test_what_is_not_accepted_is_given_back(self, client, user):
        for _ in range(3):
            assert client.post("/api/early-limited", {"count": "x"}).status_code == 400
            assert (
                client.post("/api/early-limited", {"flag": True}).status_code == 422
            )  # answered, not raised
        assert client.post("/api/early-limited", "x", content_type="text/plain").status_code == 415

        assert used(user, "upload") == 0
        assert client.post("/api/early-limited", {})["RateLimit-Remaining"] == "1"

    def test_who_may_not_is_told_so_and_not_charged(self, client, user):
        for _ in range(2):
            client.post("/api/early-limited", {})
        visitor = APIClient()
        visitor.force_authenticate(UserFactory())

        assert APIClient().post("/api/early-limited", {}).status_code == 401
        assert visitor.post("/api/early-limited", {}).status_code == 403

    def test_reading_is_not_limited(self, client, user):
        assert all(client.get("/api/early-limited").status_code == 200 for _ in range(4))
        assert used(user, "upload") == 0
