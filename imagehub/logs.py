"""Log lines: one record, one line, without secrets, and with the ids that tell what it belongs to."""

import logging
import re
import time

from imagehub.context import job_id, request_id
from imagehub.redaction import redact

INDENT = "    "

# All that could end a line, steer a terminal or not be written at all.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class RedactingFormatter(logging.Formatter):
    """Writes a record with its request and job, passed through :func:`imagehub.redaction.redact` as a whole.

    A filter would not do: it sees the message, but not the traceback, which quotes values just as freely.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, and its traceback as indented ones beneath it."""
        ids = "".join(
            f" {name}={_escape(value.get())}"
            for name, value in (("request", request_id), ("job", job_id))
            if value.get()
        )
        head = f"{self.formatTime(record)} {record.levelname} {record.name}{ids}: "
        lines = [head + _escape(record.getMessage())]
        # Not ``record.exc_text``: other handlers share it, and what they keep there is not redacted.
        if record.exc_info:
            lines += _indented(self.formatException(record.exc_info))
        if record.stack_info:
            lines += _indented(self.formatStack(record.stack_info))
        return redact("\n".join(lines))


def _indented(text: str) -> list[str]:
    return [INDENT + _escape(line) for line in text.split("\n")]


def _escape(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
