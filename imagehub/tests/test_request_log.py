"""The line a request leaves behind, and what it hides from all lines."""

import asyncio
import json
import logging

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.utils.functional import SimpleLazyObject

from imagehub.accounts.tests.factories import UserFactory
from imagehub.api.parsers import JSONParser
from imagehub.context import at_work, hide
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import JobKind
from imagehub.jobs.run_log import RunLog
from imagehub.jobs.runner import run_next
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory
from imagehub.logs import RedactingFormatter
from imagehub.middleware import RequestIdMiddleware

log = logging.getLogger("imagehub.test")


@pytest.fixture
def lines():
    """Every line of ours, DEBUG included, as data."""
    found = []
    handler = logging.Handler()
    handler.setFormatter(RedactingFormatter("json"))
    handler.emit = lambda record: found.append(json.loads(handler.format(record)))
    root = logging.getLogger("imagehub")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield found
    root.removeHandler(handler)
    root.setLevel(level)


def ask(request, view=lambda request: HttpResponse(status=200)):
    return RequestIdMiddleware(view)(request)


class TestLine:
    def test_tells_how_a_request_went(self, lines):
        ask(RequestFactory().get("/somewhere", {"q": "x"}, HTTP_X_REQUEST_ID="request-1"))

        [line] = lines
        assert (line["event"], line["method"], line["path"], line["status"], line["level"]) == (
            *("request.completed", "GET", "/somewhere", 200, "INFO"),
        )
        assert line["request_id"] == "request-1"
        assert line["duration_ms"] >= 0

    @pytest.mark.parametrize(
        ("path", "status", "level"),
        [
            ("/api/health/live", 200, "DEBUG"),
            ("/api/health/ready", 200, "DEBUG"),
            ("/api/health/ready", 503, "ERROR"),
            ("/api/health", 200, "INFO"),
            ("/static/x.css", 200, "DEBUG"),
            ("/metrics", 200, "DEBUG"),
            ("/metrics", 503, "ERROR"),
            ("/x", 404, "INFO"),
            ("/x", 500, "ERROR"),
        ],
    )
    def test_is_as_loud_as_it_has_to_be(self, lines, path, status, level):
        ask(RequestFactory().get(path), lambda request: HttpResponse(status=status))

        assert [line["level"] for line in lines] == [level]

    def test_names_the_user_and_the_operation(self, lines):
        def view(request):
            request.user = User(email="ann@example.com")
            return HttpResponse()

        ask(RequestFactory().get("/"), view)

        assert lines[0]["user"] == "ann@example.com"

    def test_does_not_ask_who_the_user_is(self, lines):
        asked = []

        def view(request):
            request.user = SimpleLazyObject(lambda: asked.append(1) or AnonymousUser())
            return HttpResponse()

        ask(RequestFactory().get("/"), view)

        assert asked == []
        assert "user" not in lines[0]

    @pytest.mark.django_db
    def test_names_the_view(self, lines, client):
        client.get("/api/health")

        assert lines[-1]["operation"]

    @pytest.mark.django_db  # to close a response ends old connections
    def test_a_stream_is_logged_when_it_ends(self, lines):
        response = ask(
            RequestFactory().get("/", HTTP_X_REQUEST_ID="request-1"),
            lambda request: StreamingHttpResponse(iter(["a"])),
        )
        assert lines == []

        response.close()

        assert [line["request_id"] for line in lines] == ["request-1"]

    def test_an_asynchronous_view_is_logged(self, lines):
        async def view(request):
            return HttpResponse(status=201)

        asyncio.run(RequestIdMiddleware(view)(AsyncRequestFactory().get("/")))

        assert [line["status"] for line in lines] == [201]


class TestHiding:
    @pytest.mark.parametrize(
        "sent",
        [
            {"HTTP_AUTHORIZATION": "Token lighthouse"},
            {"HTTP_COOKIE": "sessionid=lighthouse"},
            {"HTTP_IDEMPOTENCY_KEY": "lighthouse"},
            {"QUERY_STRING": "code=lighthouse"},
            {"QUERY_STRING": "state=lighthouse"},
            {"QUERY_STRING": "prompt=lighthouse"},
        ],
    )
    def test_what_the_head_says_is_hidden(self, lines, sent):
        ask(RequestFactory().get("/", **sent), lambda request: log.info("lighthouse") or HttpResponse())

        assert lines[0]["event"] == "[redacted]"

    def test_what_a_form_says_is_hidden_once_it_is_read(self, lines):
        def view(request):
            assert request.POST["form-0-prompt"]
            log.info("a lighthouse, harmless")
            return HttpResponse()

        ask(RequestFactory().post("/", {"form-0-prompt": "lighthouse", "name": "harmless"}), view)

        assert lines[0]["event"] == "a [redacted], harmless"

    def test_a_form_is_not_read_for_it(self, lines):
        def view(request):
            request.upload_handlers = list(request.upload_handlers)  # refused once the form was read
            return HttpResponse()

        ask(RequestFactory().post("/", {"prompt": "lighthouse"}), view)

        assert len(lines) == 1

    def test_what_a_body_says_is_hidden(self, lines):
        body = {"items": [{"prompt": "lighthouse", "name": "harmless"}]}
        with at_work():
            JSONParser().parse(RequestFactory().post("/", body, content_type="application/json"))
            log.info("a lighthouse, harmless")

        assert lines[0]["event"] == "a [redacted], harmless"


@pytest.mark.django_db
class TestJob:
    def test_carries_the_request_into_its_lines(self, lines, monkeypatch):
        monkeypatch.setattr(Errand, "sensitive_texts", lambda job: ("lighthouse",))

        def perform(job, lease):
            log.info("a lighthouse")
            lease.complete()

        with at_work(request="request-1"):
            errand = ErrandFactory(owner=UserFactory(email="ann@example.com"))
        assert run_next(JobKind("errand", Errand, Cluster.DEFAULT, perform))

        [line] = [line for line in lines if line["logger"] == "imagehub.test"]
        assert line["event"] == "a [redacted]"
        assert (line["request_id"], line["job_id"]) == ("request-1", str(errand.pk))
        assert (line["kind"], line["user"]) == ("errand", "ann@example.com")
        errand.refresh_from_db()
        assert errand.status == JobStatus.COMPLETED

    def test_a_database_error_that_quotes_the_row_tells_nothing(self, lines, monkeypatch):
        monkeypatch.setattr(Errand, "sensitive_texts", lambda job: ("lighthouse",))

        def perform(job, lease):
            raise ValueError("Failing row contains (1, a LIGHTHOUSE)")

        ErrandFactory()
        run_next(JobKind("errand", Errand, Cluster.DEFAULT, perform))

        assert "lighthouse" not in json.dumps(lines).lower()
        assert "ValueError" in json.dumps(lines)


def test_a_run_log_names_each_job_once(tmp_path):
    run_log = RunLog(tmp_path / "x.log", limit_bytes=10_000)
    with at_work(request="request-1", job="job-1"):
        run_log.begin_job()
        run_log.begin_job()
    with at_work(job="job-2"):
        run_log.begin_job()

    assert (tmp_path / "x.log").read_text().splitlines() == [
        "--- job job-1 of request request-1",
        "--- job job-2 of request -",
    ]


def test_hiding_reaches_threads_that_share_the_context(lines):
    async def main():
        with at_work():
            await asyncio.to_thread(hide, "lighthouse")
            log.info("a lighthouse")

    asyncio.run(main())

    assert lines[0]["event"] == "a [redacted]"
