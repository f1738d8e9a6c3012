"""Log lines: one record, one line, without secrets, and with what tells which work it belongs to.

Whatever logs, ours or not, through ``structlog`` or ``logging``, ends in :class:`RedactingFormatter`.
"""

import json
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, cast

import structlog
from structlog.typing import EventDict

from imagehub.context import current_facts, hidden_strings, job_id, request_id
from imagehub.redaction import REDACTED, is_sensitive_field, redact

INDENT = "    "

FORMATS = ("json", "text")

HEAD = ("timestamp", "level", "logger", "event")
FACTS = ("request_id", "user", "operation", "duration_ms", "status", "job_id", "kind")
"""What a record says about the work it belongs to, as far as that is known."""

MAX_DEPTH = 4
MAX_ITEMS = 100

# All that could end a line, steer a terminal or not be written at all.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLAIN = re.compile(r"[\w.@:/+-]+", re.ASCII)

# Django's and uvicorn's own extras: a request's representation quotes its query, and colours belong to terminals.
_LEFT_OUT = frozenset({"request", "server_time", "color_message", "taskName", "_record", "_from_structlog"})
_BLOCKS = ("exception", "stack")


def format_of(environ: Mapping[str, str]) -> str:
    """Return the format the environment asks for: ``json`` in production and ``text`` elsewhere, unless it is named."""
    is_production = environ.get("IMAGEHUB_ENV") == "production"
    return environ.get("IMAGEHUB_LOG_FORMAT") or ("json" if is_production else "text")


def logging_settings(*, level: str, log_format: str) -> dict[str, Any]:
    """Return Django's ``LOGGING``, and have ``structlog`` write to the same place."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    # Web servers and Django bring handlers of their own; theirs would write what ours would redact.
    foreign = ("django", "django.server", "uvicorn", "uvicorn.error", "gunicorn.error")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "imagehub.logs.RedactingFormatter", "log_format": log_format}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        # Django-Q adds a handler of its own, and stops propagation, where the root has none.
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            **{name: {"handlers": [], "propagate": True} for name in foreign},
            # `request.completed` says more than their access logs, and less.
            **{
                name: {"handlers": [], "propagate": True, "level": "WARNING"}
                for name in ("uvicorn.access", "gunicorn.access")
            },
            "django.request": {"level": "ERROR"},  # what clients do wrong is told to them
            "django-q": {"level": "WARNING"},  # an INFO line for each doorbell helps nobody
            "httpx2": {"level": "WARNING"},  # it tells each address with all that is in it
        },
    }


class RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """Writes a record with all it belongs to, passed through :func:`imagehub.redaction.redact` as a whole.

    A filter would not do: it sees the message, but not the traceback, which quotes values just as freely.
    """

    def __init__(self, log_format: Literal["json", "text"] | None = None) -> None:
        """Write ``json`` or ``text``; without either, what the environment says."""
        render = _as_json if (log_format or format_of(os.environ)) == "json" else _as_text
        super().__init__(
            processors=[structlog.processors.format_exc_info, _arrange, render],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _rename_stack],
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line; as text, with its traceback as indented lines beneath it.

        Whatever is wrong with a record, it is not lost, and it is not left to ``logging`` to print it raw.
        """
        record = logging.makeLogRecord(record.__dict__)
        record.exc_text = None  # other handlers share it, and what they keep there is not redacted
        try:
            if not hasattr(record, "_logger"):
                record.msg, record.args = _message(record), ()
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - a handler would print the record to standard error, raw
            record = logging.LogRecord(
                record.name, record.levelno, record.pathname, record.lineno, "", (), None
            )
            record.msg = f"A record from line {record.lineno} could not be written: {type(error).__name__}"
            return super().format(record)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - whoever logged gave other arguments than the message asks for
        return _text_of(record.msg)


def _rename_stack(logger: Any, method: str, event: EventDict) -> EventDict:
    if stack := event.pop("stack_info", None):
        event["stack"] = stack
    return event


def _arrange(logger: Any, method: str, event: EventDict) -> dict[str, Any]:
    """Put what every record says first, and take out what must not be told."""
    record = cast(logging.LogRecord, event["_record"])
    given = {str(key): value for key, value in event.items() if key not in _LEFT_OUT}
    if "status_code" in given:  # Django's name
        given.setdefault("status", given.pop("status_code"))
    clean = _cleaner()
    arranged: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6]
        + "Z",
        "level": record.levelname,
        "logger": record.name,
        "event": clean(given.pop("event", "") if event["_from_structlog"] else record.msg),
    }
    known = {"request_id": request_id.get(), "job_id": job_id.get(), **current_facts()}
    for name in FACTS:
        if known.get(name):
            arranged[name] = known[name]
        elif given.get(name) not in (None, ""):
            arranged[name] = clean(given[name])
    for name, value in given.items():
        if name not in arranged and name not in FACTS:
            arranged[name] = REDACTED if is_sensitive_field(name) else clean(value)
    return arranged


def _cleaner() -> Callable[[Any], Any]:
    """Return a function that turns anything into data that can be written and may be read."""
    hidden = hidden_strings()

    def clean_text(text: str) -> str:
        return REDACTED if hidden is None else redact(text, sensitive=hidden)

    def clean(value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if type(value) is int and abs(value) < 2**63:
            return value
        if type(value) is float and math.isfinite(value):
            return value
        if depth < MAX_DEPTH and isinstance(value, Mapping):
            return {
                clean_text(_text_of(name)): REDACTED
                if is_sensitive_field(_text_of(name))
                else clean(inner, depth + 1)
                for name, inner in list(value.items())[:MAX_ITEMS]
            }
        if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
            return [clean(inner, depth + 1) for inner in list(value)[:MAX_ITEMS]]
        return clean_text(_text_of(value))

    return clean


def _text_of(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - anything may be logged
        return f"<{type(value).__name__} that cannot be shown>"


def _as_json(logger: Any, method: str, record: dict[str, Any]) -> str:
    return json.dumps(record)  # escapes all but ASCII, and so whatever could end a line


def _as_text(logger: Any, method: str, record: dict[str, Any]) -> str:
    """Write the fields before the message, which comes last and may say anything."""
    fields = "".join(
        f" {_escape(name)}={_quoted(value)}"
        for name, value in record.items()
        if name not in HEAD and name not in _BLOCKS
    )
    lines = [
        f"{record['timestamp']} {record['level']} {_escape(record['logger'])}{fields}: {_escape(str(record['event']))}"
    ]
    for name in _BLOCKS:
        if name in record:
            lines += [INDENT + _escape(line) for line in str(record[name]).split("\n")]
    return "\n".join(lines)


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(value)


def _escape(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
