import logging

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client

from imagehub.accounts.tests.factories import ApiTokenFactory
from imagehub.api.tests.urls import FAILURES

pytestmark = [pytest.mark.django_db, pytest.mark.urls("imagehub.api.tests.urls")]

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}


def problem(response, status):
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body.keys() >= MEMBERS
    assert body["status"] == status
    assert "secret" not in response.content.decode()
    return body


@pytest.fixture
def quiet_client():
    """A client that sees the answer to a bug, and not the bug."""
    return Client(raise_request_exception=False)


@pytest.mark.parametrize(
    ("kind", "status", "code", "title"),
    [
        ("invalid", 400, "too_long", "The request cannot be carried out"),
        ("conflict", 409, "already_finished", "The job has finished"),
        ("not-ready", 422, "not_ready", "This is not possible now"),
        ("other", 400, "invalid", "The request cannot be carried out"),
        ("integrity", 409, "conflict", "Conflict"),
        ("database-away", 503, "database_unavailable", "Service Unavailable"),
        ("model-validation", 400, "invalid", "Bad Request"),
        ("404", 404, "not_found", "Not Found"),
        ("404-drf", 404, "not_found", "Not Found"),
        ("403", 403, "permission_denied", "Forbidden"),
        ("403-drf", 403, "permission_denied", "Forbidden"),
        ("too-big", 413, "content_too_large", "Request Entity Too Large"),
        ("suspicious", 400, "bad_request", "Bad Request"),
        ("unreadable", 400, "bad_request", "Bad Request"),
        ("throttled", 429, "throttled", "Too Many Requests"),
    ],
)
def test_each_failure_has_its_status_code_and_title(client, kind, status, code, title):
    body = problem(client.get(f"/api/failures/{kind}"), status)

    assert (body["code"], body["title"]) == (code, title)
    assert body["instance"] == f"/api/failures/{kind}"


class TestTheDocument:
    def test_names_its_type_for_our_failures_only(self, client):
        assert client.get("/api/failures/conflict").json()["type"] == "/problems/already_finished"
        assert client.get("/api/failures/403").json()["type"] == "about:blank"

    def test_carries_the_id_of_the_request(self, client):
        response = client.get("/api/failures/404", headers={"X-Request-ID": "abcdefgh-1"})

        assert response.json()["request_id"] == response["X-Request-ID"] == "abcdefgh-1"

    def test_keeps_the_sentence_of_the_failure(self, client):
        assert client.get("/api/failures/conflict").json()["detail"] == "It finished at noon."
        assert client.get("/api/failures/403-drf").json()["detail"] == "Only the owner may do this."

    def test_is_json_whatever_is_accepted(self, client):
        problem(client.get("/api/failures/conflict", headers={"Accept": "image/png"}), 406)

    def test_can_quote_what_cannot_be_encoded(self, client):
        body = problem(client.get("/api/failures/surrogate"), 400)

        assert body["errors"][0]["detail"] == "“\ud800” is not known."


class TestErrors:
    def test_point_at_the_field_of_a_service(self, client):
        assert client.get("/api/failures/invalid").json()["errors"] == [
            {"pointer": "/config/rank", "code": "too_long", "detail": "It is too long."}
        ]

    def test_point_at_the_field_of_a_model(self, client):
        assert client.get("/api/failures/model-validation").json()["errors"] == [
            {"pointer": "/name", "code": "min_length", "detail": "Too short."}
        ]

    def test_point_into_lists_and_objects(self, client):
        body = problem(client.get("/api/failures/nested"), 400)

        assert [(error["pointer"], error["detail"]) for error in body["errors"]] == [
            ("/loras/1/weight", "Too large."),
            ("/loras/1/weight", "Too heavy."),
            ("/tags/3", "Too long."),
            ("/a~1b~0c", "Odd."),
            ("", "They do not fit together."),
        ]

    def test_point_at_the_list_itself(self, client):
        assert client.get("/api/failures/nested-whole").json()["errors"][0]["pointer"] == "/loras"

    def test_about_the_whole_body_are_said_in_the_detail(self, client):
        body = client.get("/api/failures/whole").json()

        assert body["detail"] == body["errors"][0]["detail"] == "They do not fit together."
        assert body["errors"][0]["pointer"] == ""

    def test_are_not_listed_without_end(self, client):
        assert len(client.get("/api/failures/many").json()["errors"]) == 100


class TestHeaders:
    def test_name_the_methods_that_are_allowed(self, client):
        response = client.delete("/api/failures/conflict")

        assert problem(response, 405)["code"] == "method_not_allowed"
        assert response["Allow"] == "GET, HEAD, OPTIONS"

    def test_say_how_long_to_wait(self, client):
        response = client.get("/api/failures/throttled")

        assert response["Retry-After"] == "12"
        assert response.json()["retry_after"] == 12

    @pytest.mark.parametrize("path", ["/api/failures", "/api/raw-failures", "/pages"])
    def test_say_when_the_database_may_be_back(self, quiet_client, path):
        response = quiet_client.get(f"{path}/database-away")

        assert (response.status_code, response["Retry-After"]) == (503, "5")
        assert "secret" not in response.text

    def test_challenge_who_is_not_signed_in(self, client):
        response = client.post("/api/body")

        assert problem(response, 401)["code"] == "not_authenticated"
        assert response["WWW-Authenticate"] == 'Bearer realm="ImageHub"'


class TestRefusalsOfTheBody:
    def test_a_wrong_media_type(self, client):
        response = client.post("/api/open-body", "text=x", content_type="text/plain")

        assert problem(response, 415)["code"] == "unsupported_media_type"

    def test_a_body_that_is_too_large(self, client, settings):
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100

        response = client.post("/api/open-body", {"text": "x" * 200}, content_type="application/json")

        assert problem(response, 413)["code"] == "content_too_large"

    def test_is_not_looked_at_before_the_caller_is_known(self, client):
        for body in ("{", "[" * 100_000, b"\xff"):
            problem(client.post("/api/body", body, content_type="application/json"), 401)


class TestConflictsOfTheDatabase:
    def test_are_logged_without_the_row(self, client, caplog):
        token = ApiTokenFactory()
        with pytest.raises(IntegrityError) as caught, transaction.atomic():
            ApiTokenFactory(digest=token.digest, name="a secret prompt")
        FAILURES["integrity-real"] = caught.value

        with caplog.at_level(logging.WARNING, "imagehub"):
            problem(client.get("/api/failures/integrity-real"), 409)

        assert "digest" in caplog.text
        assert token.digest not in caplog.text
        assert caplog.records[0].levelname == "WARNING"

    def test_are_logged_by_the_name_of_a_broken_check(self, client, caplog):
        with pytest.raises(IntegrityError) as caught, transaction.atomic():
            ApiTokenFactory(name="a secret prompt", expires_at="2000-01-01T00:00Z")
        FAILURES["integrity-real"] = caught.value
        if connection.vendor == "postgresql":
            assert "a secret prompt" in str(caught.value)

        problem(client.get("/api/failures/integrity-real"), 409)

        assert "apitoken_expires_after_creation" in caplog.text
        assert "a secret prompt" not in caplog.text


class TestNotFound:
    def test_looks_the_same_for_hidden_and_unknown_and_no_route(self, client):
        bodies = [
            problem(client.get(path), 404) | {"instance": None, "request_id": None}
            for path in (
                "/api/failures/404",
                "/api/failures/404-drf",
                "/api/no-such-route",
                "/api/tokens/0190a0a0-0000-7000-8000-000000000000",
                "/api/tokens/17",
                "/api",
            )
        ]

        assert all(body == bodies[0] for body in bodies)


class TestHandlers:
    def test_answer_a_bug_with_nothing_but_the_id_of_the_request(self, quiet_client, caplog):
        response = quiet_client.get("/api/failures/bug", headers={"X-Request-ID": "abcdefgh-1"})

        body = problem(response, 500)
        assert body["code"] == "server_error"
        assert body["request_id"] == "abcdefgh-1"
        assert "RuntimeError" not in response.text
        assert "secret internals" in caplog.text

    @pytest.mark.parametrize(
        ("kind", "status", "code"),
        [
            ("bug", 500, "server_error"),
            ("database-away", 503, "database_unavailable"),
            ("404", 404, "not_found"),
            ("403", 403, "permission_denied"),
            ("suspicious", 400, "bad_request"),
            ("too-big", 413, "content_too_large"),
        ],
    )
    def test_answer_with_a_problem_outside_of_api_views(self, quiet_client, kind, status, code):
        assert problem(quiet_client.get(f"/api/raw-failures/{kind}"), status)["code"] == code

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/pages/bug", 500),
            ("/pages/database-away", 503),
            ("/pages/404", 404),
            ("/pages/403", 403),
            ("/pages/suspicious", 400),
            ("/apiary", 404),
        ],
    )
    def test_answer_with_a_page_elsewhere(self, quiet_client, path, status):
        response = quiet_client.get(path)

        assert response.status_code == status
        assert response["Content-Type"].startswith("text/html")

    def test_answer_a_host_that_is_not_ours(self, client):
        problem(client.get("/api/failures/404", headers={"Host": "evil.test"}), 400)


class TestCsrfFailure:
    @pytest.fixture(autouse=True)
    def _view(self, settings):
        settings.CSRF_FAILURE_VIEW = "imagehub.api.problems.csrf_failure"

    def test_is_a_problem_under_api(self):
        response = Client(enforce_csrf_checks=True).post("/api/raw-failures/404")

        assert problem(response, 403)["code"] == "csrf_failed"

    def test_is_a_page_elsewhere(self):
        response = Client(enforce_csrf_checks=True).post("/pages/404")

        assert response.status_code == 403
        assert response["Content-Type"].startswith("text/html")
