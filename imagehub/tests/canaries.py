"""Strings that must never be told, planted in what the factories make, and looked for after every test.

Looked for: log lines, Django-Q's tables, the admin's log, the audit trail, and the bodies of errors.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress

from django.apps import apps
from django.core.handlers.base import BaseHandler
from django.db import DatabaseError, connection
from django_q.models import OrmQ

from imagehub.logs import RedactingFormatter

CANARY = "canary7f3e"
"""Part of prompts, negative prompts, captions, passwords and the secrets of tokens."""

TABLES = ("django_q.OrmQ", "django_q.Task", "django_q.Schedule", "admin.LogEntry", "accounts.AuditEntry")
MAX_ROWS = 200

_found: list[str] = []


def problems_of_line(line: str) -> Iterator[str]:
    """Say what is wrong with one line of the log."""
    try:
        is_one_object = isinstance(json.loads(line), dict) and len(line.splitlines()) == 1
    except ValueError:
        is_one_object = False
    if not is_one_object:
        yield f"A log line is not JSON: {line}"
    if CANARY in line.lower():
        yield f"A canary in a log line: {line}"


def problems_of_response(response) -> Iterator[str]:
    """Say what is wrong with the body of an answer."""
    if response.status_code >= 400 and not response.streaming and CANARY.encode() in response.content.lower():
        yield f"A canary in the body of a {response.status_code}: {response.content!r}"


def problems_of_tables() -> Iterator[str]:
    """Say which rows hold a canary. A row of a table that is full of them is enough."""
    for label in TABLES:
        for row in apps.get_model(label)._base_manager.all()[:MAX_ROWS]:
            told = repr(row.task) if isinstance(row, OrmQ) else repr(vars(row))
            if CANARY in told.lower():
                yield f"A canary in {label}: {told}"


class _Watcher(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _found.extend(problems_of_line(self.format(record)))


_watcher = _Watcher()
_watcher.setFormatter(RedactingFormatter("json"))


def watch() -> None:
    """Look at every log line and every answer from now on. Harmless when repeated."""
    root = logging.getLogger()
    if _watcher not in root.handlers:
        root.addHandler(_watcher)
    if not hasattr(BaseHandler, "_unwatched"):
        BaseHandler._unwatched = (BaseHandler.get_response, BaseHandler.get_response_async)
        BaseHandler.get_response = _get_response
        BaseHandler.get_response_async = _get_response_async


def take(*, database: bool) -> list[str]:
    """Return what was found since the last call, and what the tables hold now."""
    found = _found.copy()
    _found.clear()
    if database and not connection.needs_rollback:
        with suppress(DatabaseError):  # the test has broken the database
            found += problems_of_tables()
    return found


def _get_response(handler, request):
    response = BaseHandler._unwatched[0](handler, request)
    _found.extend(problems_of_response(response))
    return response


async def _get_response_async(handler, request):
    response = await BaseHandler._unwatched[1](handler, request)
    _found.extend(problems_of_response(response))
    return response
