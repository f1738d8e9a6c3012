"""Errors to a Sentry server, where the operator names one. What is logged as an error is told there, and nothing else.

An event is put together from what may leave the machine. So whatever a later version of the library adds to its own stays here.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.types import Event, Hint

import imagehub
from imagehub.context import hidden_strings
from imagehub.logs import RedactingFormatter
from imagehub.redaction import REDACTED, redact, redact_paths

ENVELOPE = (
    "event_id",
    "timestamp",
    "platform",
    "level",
    "logger",
    "release",
    "environment",
    "server_name",
    "sdk",
)
"""What the library says of an event that tells nothing of its subject. The name of the machine is among it."""

TAGS = ("request_id", "job_id", "kind", "operation")

FRAME = ("module", "function", "lineno", "in_app")

TOLD_TWICE = frozenset({"imagehub.middleware"})
"""The line that ends a request with status 500 follows the one with the error."""

VISITORS = "django.security."
"""What visitors can log as errors as often as they like, with a word of theirs in it: a host that is none of ours."""

DATABASES = ("django.db", "psycopg", "sqlite3")
"""The texts of their errors may quote rows, and with them prompts."""

LONGEST_TEXT = 1000

_formatter = RedactingFormatter("json")


def begin(dsn: str, *, environment: str) -> None:
    """Tell a Sentry server of errors from now on, in this process and in those forked from it.

    Args:
        dsn: its address, with the key of the project.
        environment: which installation it is.
    """
    sentry_sdk.init(
        dsn=dsn,
        release=f"imagehub@{imagehub.__version__}",
        environment=environment,
        before_send=presentable,
        default_integrations=False,  # they follow requests, programs and arguments, and mark what we send to others
        auto_enabling_integrations=False,
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR, sentry_logs_level=None),
            ExcepthookIntegration(),
            AtexitIntegration(callback=lambda pending, timeout: None),  # it would print to a command's output
        ],
        include_local_variables=False,
        include_source_context=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        traces_sample_rate=0.0,
        propagate_traces=False,
        trace_propagation_targets=[],
        auto_session_tracking=False,
        enable_logs=False,
        enable_metrics=False,
        spotlight=False,
    )


def presentable(event: Event, hint: Hint) -> Event | None:
    """Return what may be told of an event; None: nothing. Called where it happened, so it is known what is to be hidden."""
    logger = event.get("logger") or ""
    if logger in TOLD_TWICE or logger.startswith(VISITORS):
        return None
    told: dict[str, Any] = {name: event[name] for name in ENVELOPE if name in event}  # type: ignore[literal-required]
    record = hint.get("log_record")
    if record is not None:
        told |= _of_record(record)
    if exceptions := event.get("exception", {}).get("values"):
        told["exception"] = {"values": [_exception(found) for found in exceptions]}
    return told  # type: ignore[return-value]


def _of_record(record: logging.LogRecord) -> dict[str, Any]:
    """Return the message of a record as the log has it, and which work it belongs to."""
    line = json.loads(_formatter.format(record))
    told: dict[str, Any] = {
        "message": redact_paths(str(line["event"]))[:LONGEST_TEXT],
        "tags": {name: line[name] for name in TAGS if line.get(name)},
    }
    request = getattr(record, "request", None)
    if request is not None:
        told["request"] = {"method": str(request.method), "url": _clean(str(request.path))}
    return told


def _exception(found: Mapping[str, Any]) -> dict[str, Any]:
    is_of_database = str(found.get("module") or "").startswith(DATABASES)
    frames = (found.get("stacktrace") or {}).get("frames") or ()
    return {
        "type": found.get("type"),
        "module": found.get("module"),
        "value": REDACTED if is_of_database else redact_paths(_clean(str(found.get("value") or ""))),
        "stacktrace": {"frames": [_frame(frame) for frame in frames]},
    }


def _frame(frame: Mapping[str, Any]) -> dict[str, Any]:
    path = PurePath(str(frame.get("filename") or ""))
    return {field: frame.get(field) for field in FRAME} | {
        "filename": path.name if path.is_absolute() else str(path)
    }


def _clean(text: str) -> str:
    hidden = hidden_strings()
    return REDACTED if hidden is None else redact(text, sensitive=hidden)[:LONGEST_TEXT]
