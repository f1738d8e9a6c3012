import logging
import re
import sys

import pytest

from imagehub.context import job_id, request_id
from imagehub.logs import RedactingFormatter

FORGED = "2026-01-01T00:00:00.000Z INFO admin: login ok"


def line(message="hello", *args, level=logging.INFO, exc_info=None, stack_info=None):
    record = logging.LogRecord("imagehub.test", level, __file__, 1, message, args, exc_info, sinfo=stack_info)
    return RedactingFormatter().format(record)


def caught(error):
    try:
        raise error
    except type(error):
        return sys.exc_info()


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
        assert "imagehub.test request=request-1 job=job-1: hello" in line()

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

        assert "hunter2" not in RedactingFormatter().format(record)

    def test_leaves_the_record_as_it_was_for_other_handlers(self):
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "a\nb", (), caught(ValueError("c")))

        RedactingFormatter().format(record)

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
