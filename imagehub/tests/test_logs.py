import json
import logging
import os
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
import structlog
from django.conf import settings
from django.utils.translation import gettext_lazy

from imagehub import redaction
from imagehub.context import MAX_HIDDEN, at_work, hide, job_id, request_id
from imagehub.logs import RedactingFormatter, format_of

FORGED = "2026-01-01T00:00:00.000Z INFO admin: login ok"


def line(message="hello", *args, level=logging.INFO, exc_info=None, stack_info=None):
    record = logging.LogRecord("imagehub.test", level, __file__, 1, message, args, exc_info, sinfo=stack_info)
    return RedactingFormatter("text").format(record)


def data(message="hello", *args, level=logging.INFO, exc_info=None, **extra):
    """Format as JSON, and read it back."""
    record = logging.getLogger("imagehub.test").makeRecord(
        "imagehub.test", level, __file__, 1, message, args, exc_info, extra=extra
    )
    text = RedactingFormatter("json").format(record)
    assert len(text.splitlines()) == 1
    return json.loads(text)


def caught(error):
    try:
        raise error
    except type(error):
        return sys.exc_info()


@contextmanager
def capture():
    """Collect the lines of the logger of this file, as JSON."""
    lines = []
    handler = logging.Handler()
    handler.setFormatter(RedactingFormatter("json"))
    handler.emit = lambda record: lines.append(handler.format(record))
    logger = logging.getLogger("imagehub.test")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


@pytest.fixture
def ids():
    tokens = request_id.set("request-1"), job_id.set("job-1")
    yield
    request_id.reset(tokens[0])
    job_id.reset(tokens[1])


class TestLine:
    def test_has_time_level_logger_and_message(self):
        assert re.fullmatch(
            r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING imagehub\.test: 3 of 4",
            line("%d of %d", 3, 4, level=logging.WARNING),
        )

    def test_names_the_request_and_the_job(self, ids):
        assert "imagehub.test request_id=request-1 job_id=job-1: hello" in line()

    def test_names_neither_outside_of_them(self):
        assert "=" not in line()


class TestRedaction:
    def test_covers_the_message(self):
        assert "hunter2" not in line("password=%s", "hunter2")

    def test_covers_the_traceback(self):
        text = line(exc_info=caught(ValueError("password=hunter2")))

        assert "ValueError" in text
        assert "hunter2" not in text

    def test_covers_the_stack(self):
        assert "hunter2" not in line(stack_info="Stack:\n  password=hunter2")

    def test_covers_what_another_formatter_has_left_on_the_record(self):
        record = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "hello", (), caught(ValueError("password=hunter2"))
        )
        logging.Formatter().format(record)

        assert "hunter2" not in RedactingFormatter("text").format(record)

    def test_leaves_the_record_as_it_was_for_other_handlers(self):
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "a\nb", (), caught(ValueError("c")))

        RedactingFormatter("text").format(record)

        assert record.exc_text is None
        assert record.getMessage() == "a\nb"


class TestForgery:
    @pytest.mark.parametrize("mark", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
    def test_a_message_cannot_begin_a_line(self, mark):
        text = line("hello%s", mark + FORGED)

        assert len(text.splitlines()) == 1

    def test_a_message_cannot_steer_a_terminal(self):
        assert line("a\x1b[2Jb\x9bc").endswith(r": a\x1b[2Jb\x9bc")

    @pytest.mark.parametrize("mark", ["\n", "\r", "\u2028"])
    def test_an_exception_cannot_begin_a_line(self, mark):
        text = line(exc_info=caught(ValueError("x" + mark + FORGED)))

        _, *rest = text.splitlines()
        assert rest
        assert all(part.startswith("    ") for part in rest)

    def test_a_line_can_always_be_written(self):
        assert line("half a pair: \ud800").encode().endswith(rb": half a pair: \ud800")


class Stubborn:
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


class TestJson:
    def test_has_the_fields_in_order(self, ids):
        with at_work(request="request-1", job="job-1", facts=lambda: {"user": "a@b.c", "kind": "errand"}):
            written = data("done", duration_ms=1.5, status=200, operation="x", count=3)

        assert list(written) == [
            *("timestamp", "level", "logger", "event", "request_id", "user", "operation", "duration_ms"),
            *("status", "job_id", "kind", "count"),
        ]

    def test_leaves_out_what_is_not_known(self):
        assert list(data()) == ["timestamp", "level", "logger", "event"]

    def test_an_extra_cannot_pose_as_something_else(self):
        with at_work(request="request-1", facts=lambda: {"user": "a@b.c"}):
            written = data(
                timestamp="never", event="other", logger="other", user="x@y.z", request_id="forged"
            )

        assert written["event"] == "hello"
        assert written["logger"] == "imagehub.test"
        assert written["timestamp"] != "never"
        assert (written["user"], written["request_id"]) == ("a@b.c", "request-1")

    @pytest.mark.parametrize(
        "value",
        [
            *(object(), Stubborn(), float("nan"), 10**5000, b"x", {1: Stubborn()}, {"a"}),
            *(ValueError("x"), "\ud800", gettext_lazy("x")),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_no_extra_loses_a_record(self, value):
        assert data(thing=value)["event"] == "hello"

    def test_nor_one_that_contains_itself(self):
        endless = []
        endless.append(endless)

        assert data(thing=endless)["event"] == "hello"

    def test_nor_wrong_arguments(self):
        assert data("%d and %d", "hunter2")["event"] == "%d and %d"

    def test_a_traceback_is_part_of_the_line(self):
        written = data(exc_info=caught(ValueError("a\nb\u2028c password=hunter2")))

        assert "ValueError: a\nb\u2028c password=[redacted]" in written["exception"]

    @pytest.mark.parametrize("name", ["prompt", "negative_prompt", "Password", "api_token", "caption"])
    def test_a_sensitive_field_is_redacted_by_its_name(self, name):
        assert data(**{name: "hunter2"})[name] == "[redacted]"
        assert data(body={"rows": [{name: ["hunter2", 5]}]})["body"] == {"rows": [{name: "[redacted]"}]}

    def test_structlog_writes_the_same(self):
        with capture() as lines:
            structlog.get_logger("imagehub.test").warning("hello", password="hunter2", count=3)

        written = json.loads(lines[0])
        assert (written["level"], written["event"], written["count"]) == ("WARNING", "hello", 3)
        assert written["password"] == "[redacted]"

    def test_structlog_writes_tracebacks(self):
        with capture() as lines:
            try:
                raise ValueError("password=hunter2")
            except ValueError:
                structlog.get_logger("imagehub.test").exception("failed")

        assert "ValueError: password=[redacted]" in json.loads(lines[0])["exception"]


class TestHiding:
    PROMPT = "a Lighthouse\nin the \u201cstorm\u201d"

    def test_what_is_hidden_is_found_in_messages_extras_and_tracebacks(self):
        with at_work():
            hide(self.PROMPT)
            written = data(
                "Failed: %r", self.PROMPT, exc_info=caught(ValueError(self.PROMPT)), deep={"a": [self.PROMPT]}
            )

        assert "ighthouse" not in json.dumps(written)

    def test_text_hides_as_well(self):
        with at_work():
            hide(self.PROMPT)
            assert "ighthouse" not in line(self.PROMPT, exc_info=caught(ValueError(self.PROMPT)))

    def test_it_is_forgotten_with_the_work(self):
        with at_work():
            hide("lighthouse")
        with at_work():
            assert data("lighthouse")["event"] == "lighthouse"

    def test_what_turns_out_later_is_asked_for(self):
        found = []
        with at_work(sensitive=lambda: found):
            found.append("lighthouse")
            assert data("a lighthouse")["event"] == "a [redacted]"

    def test_too_much_to_look_for_hides_everything(self):
        with at_work(request="request-1"):
            hide(*(f"secret {n}" for n in range(MAX_HIDDEN + 5)))
            written = data("secret 1004", thing="secret 1004")

        assert (written["event"], written["thing"]) == ("[redacted]", "[redacted]")
        assert written["request_id"] == "request-1"

    def test_nothing_hidden_costs_no_search(self, monkeypatch):
        monkeypatch.setattr(redaction, "_forms", None)  # would raise

        assert data("hello")["event"] == "hello"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "text"),
        ({"IMAGEHUB_ENV": "production"}, "json"),
        ({"IMAGEHUB_ENV": "production", "IMAGEHUB_LOG_FORMAT": "text"}, "text"),
        ({"IMAGEHUB_LOG_FORMAT": "json"}, "json"),
    ],
)
def test_the_environment_chooses_the_format(environ, expected):
    assert format_of(environ) == expected


@pytest.mark.parametrize(
    "name", ["django.server", "uvicorn.error", "uvicorn.access", "gunicorn.error", "gunicorn.access"]
)
def test_web_servers_have_no_handlers_of_their_own(name):
    code = f"""
import logging, sys
foreign = logging.getLogger({name!r})
foreign.addHandler(logging.StreamHandler()); foreign.propagate = False
import django; django.setup()
foreign.error("GET /?code=hunter2 password=%s", "hunter2")
"""
    env = os.environ | {"IMAGEHUB_LOG_FORMAT": "json", "DJANGO_SETTINGS_MODULE": "imagehub.settings"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )

    [text] = done.stderr.splitlines()
    assert json.loads(text)["logger"] == name
    assert "hunter2" not in text


def test_the_web_server_writes_through_the_formatter_before_django_is_there():
    written = json.loads((settings.BASE_DIR / "imagehub" / "uvicorn_logging.json").read_text())

    assert written["formatters"]["line"]["()"] == "imagehub.logs.RedactingFormatter"
    assert written["root"]["handlers"] == ["stderr"]
