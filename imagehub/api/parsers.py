import codecs
import json
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any

from rest_framework import parsers
from rest_framework.exceptions import ParseError, UnsupportedMediaType

from imagehub.context import hide
from imagehub.redaction import sensitive_values

MAX_DEPTH = 50
MAX_DIGITS = 1000
MAX_QUOTED = 100


class JSONParser(parsers.JSONParser):
    """Reads JSON (RFC 8259), which is UTF-8, from one object whose keys differ.

    Prompts and secrets in it are hidden from the log lines of the request.
    NaN and Infinity are let through, so that the field that is given one refuses it by name.
    The base class also tells DRF to hold the body to ``DATA_UPLOAD_MAX_MEMORY_SIZE``.
    """

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what the body says.

        Raises:
            ParseError: it is not JSON, or JSON that no request needs: too deep, or with numbers too long.
            UnsupportedMediaType: it declares another encoding.
        """
        encoding = (parser_context or {}).get("encoding", "utf-8")
        if not _is_utf8(encoding):
            raise UnsupportedMediaType(media_type or self.media_type, "JSON is read as UTF-8 only.")
        try:
            value = json.loads(
                stream.read().decode(), object_pairs_hook=_object_without_repeats, parse_int=_short_integer
            )
        except UnicodeDecodeError as error:
            raise ParseError(f"The body is not UTF-8: byte {error.start} does not fit.") from error
        except json.JSONDecodeError as error:
            raise ParseError(
                f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
            ) from error
        except RecursionError as error:
            raise ParseError(_TOO_DEEP) from error
        _check_depth(value)
        hide(*sensitive_values(value))
        return value


_TOO_DEEP = f"The body nests more than {MAX_DEPTH} levels deep."


def _is_utf8(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name in {"utf-8", "ascii"}
    except (LookupError, ValueError):
        return False


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ParseError(f"“{twice[:MAX_QUOTED]}” stands twice in one object.")
    return result


def _short_integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ParseError(f"A whole number has more than {MAX_DIGITS} digits.")
    return int(digits)


def _check_depth(value: Any) -> None:
    """Refuse what could exhaust the stack of a function that walks it later."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ParseError(_TOO_DEEP)
