"""What a Sentry server is told of errors, and what it is not."""

import logging
import subprocess
import sys
from dataclasses import replace

import pytest
import sentry_sdk
from django.conf import settings
from django.db import IntegrityError
from django.test import Client
from rest_framework.test import APIClient

from imagehub import error_reports
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.jobs import runner
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.registry import get_kind
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory
from imagehub.operations import metrics
from imagehub.tests import sentry_server

PROMPT = "a violet zeppelin over the silent harbour"
TOKEN = "ih_zeppelin-zeppelin-zeppelin"
FOLDER = "/srv/zeppelin/models"


@pytest.fixture
def sentry():
    with sentry_server.serving() as server:
        error_reports.begin(server.dsn, environment="testing")
        try:
            yield server
        finally:
            sentry_sdk.get_client().close(timeout=5)
            sentry_sdk.get_global_scope().set_client(None)


def told(sentry) -> list[dict]:
    sentry_sdk.flush(timeout=10)
    for body in sentry.bodies:
        assert b"zeppelin" not in body.lower()
        assert str(settings.BASE_DIR).encode() not in body
    return sentry.events


@pytest.mark.django_db
def test_an_error_in_a_view_arrives_without_what_the_request_brought(sentry, monkeypatch):
    def fail() -> None:
        local = PROMPT  # noqa: F841 - which a traceback with variables would show
        raise RuntimeError(f"{FOLDER}/x.safetensors does not draw {PROMPT}: Bearer {TOKEN}")

    monkeypatch.setattr(metrics, "page", fail)
    ApiTokenFactory(user=UserFactory(staff=True), secret=TOKEN)
    client = APIClient(raise_request_exception=False)

    answer = client.get(
        "/metrics",
        {"prompt": PROMPT},
        headers={"authorization": f"Bearer {TOKEN}", "cookie": "sessionid=zeppelin-session"},
    )

    assert answer.status_code == 500
    [event] = told(sentry)
    [error] = event["exception"]["values"]
    assert (error["type"], error["value"]) == (
        "RuntimeError",
        "x.safetensors does not draw [redacted]: Bearer [redacted]",
    )
    assert error["stacktrace"]["frames"][-1]["function"] == "fail"
    assert event["request"] == {"method": "GET", "url": "/metrics"}
    assert event["tags"] == {"request_id": answer["X-Request-ID"], "operation": "metrics"}
    assert (event["release"], event["environment"]) == ("imagehub@0.1.0", "testing")
    assert event.keys() <= {*error_reports.ENVELOPE, "message", "tags", "exception", "request"}


@pytest.mark.django_db
def test_an_error_in_a_worker_arrives_with_its_job(sentry, monkeypatch):
    monkeypatch.setattr(Errand, "sensitive_texts", lambda errand: (PROMPT,))

    def fail(errand, lease):
        raise ZeroDivisionError(f"{FOLDER}: {PROMPT.upper()}")

    errand = ErrandFactory()
    failing = replace(get_kind("errand"), perform=fail)
    monkeypatch.setattr(runner, "kinds", lambda cluster: [failing])

    runner.work_off(Cluster.SCRAPING)

    [event] = told(sentry)
    assert event["exception"]["values"][0]["type"] == "ZeroDivisionError"
    assert event["exception"]["values"][0]["value"] == "models: [redacted]"
    assert event["tags"]["job_id"] == str(errand.pk)
    assert event["tags"]["kind"] == "errand"


def test_the_text_of_an_error_of_the_database_stays_here(sentry):
    try:
        raise IntegrityError(f"DETAIL: Key (name)=({PROMPT}) already exists.")
    except IntegrityError:
        logging.getLogger("imagehub.tests").exception("It could not be stored")

    [event] = told(sentry)
    assert event["exception"]["values"][0]["value"] == "[redacted]"


@pytest.mark.cache
def test_warnings_and_what_is_told_twice_stay_here(sentry):
    logging.getLogger("imagehub.tests").warning("That is not so bad")
    logging.getLogger("imagehub.middleware").error("request.completed")
    Client().get("/api/health/live", headers={"host": "zeppelin.example"})  # nobody fills a quota with hosts

    assert told(sentry) == []


@pytest.mark.once
def test_a_command_that_ends_by_an_error_tells_of_it(process_env):
    program = f"import django; django.setup(); raise LookupError('{FOLDER}')"
    with sentry_server.serving() as sentry:
        env = process_env | {"SENTRY_DSN": sentry.dsn, "DJANGO_SETTINGS_MODULE": "imagehub.settings"}
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=env,
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            check=False,
        )

        assert ended.returncode == 1
        assert "sentry" not in ended.stderr.lower()
        [event] = sentry.events
    assert event["exception"]["values"][0]["type"] == "LookupError"
    assert event["environment"] == "development"
    assert FOLDER.encode() not in b"".join(sentry.bodies)
