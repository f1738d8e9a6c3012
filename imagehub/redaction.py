"""Takes secrets, prompts and paths out of text before it is stored or shown. Pure; no Django."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"

MIN_SENSITIVE_LENGTH = 3
"""Anything shorter would blacken half of every line."""

SENSITIVE_FIELDS = (
    "prompt", "caption", "theme", "style_suffix", "set_rows", "template_items",
    "password", "secret", "token", "digest", "cookie", "credential", "api_key", "idempotency_key",
)  # fmt: skip
"""Words by which the name of a field gives away that its values are prompts, captions or secrets."""

SENSITIVE_NAMES = frozenset({"text", "identity", "tag"})
"""Whole names of fields that hold captions and tags. As parts of names these words say nothing."""

# Every pattern below is written so that a hostile line costs linear time: what may repeat is bounded,
# or cannot fail once it has begun.

_SENSITIVE_KEY = (
    r"(?:pass(?:word|wd|phrase)|pwd|secret|token|api[_\- ]?key|(?:access|secret|private|signing|auth)[_-]?key"
    r"|credentials?|session[_-]?id|csrf[_-]?middlewaretoken|signature)"
)
_VALUE = r"""(?:
    \[redacted\]
    | [brf]?"(?:[^"\\\n]|\\.)*"?
    | [brf]?'(?:[^'\\\n]|\\.)*'?
    | (?P<escaped>\\{1,3}["'])[^\n]*?(?:(?P=escaped)|$)
    | [^\s,;&"'}\])]+
)"""
_TO_LINE_END = r"""(?:
    \[redacted\]
    | [brf]?"(?:[^"\\\n]|\\.)*"?
    | [brf]?'(?:[^'\\\n]|\\.)*'?
    | (?P<escaped>\\{1,3}["'])[^\n]*?(?:(?P=escaped)|$)
    | [^\n"']+
)"""
_IS = r"""(?:\\{0,3}["']\s{0,4}[:=,]|\s{0,4}[:=])\s{0,4}"""

_FLAGS = re.IGNORECASE | re.VERBOSE | re.MULTILINE

_HEADER = re.compile(rf"(?P<key>(?:authorization|cookie){_IS})(?P<value>{_TO_LINE_END})", _FLAGS)
_KEY_VALUE = re.compile(rf"(?P<key>{_SENSITIVE_KEY}{_IS})(?P<value>{_VALUE})", _FLAGS)
_OPTION = re.compile(
    rf"(?P<key>(?<![\w-])--?[\w-]{{0,40}}{_SENSITIVE_KEY}\s{{1,4}})(?P<value>(?!-){_VALUE})", _FLAGS
)
_BEARER = re.compile(r"\b(?P<key>(?:bearer|token)\s{1,4})[\w.~+/=:-]{12,}", re.IGNORECASE)
_KNOWN_TOKEN = re.compile(
    r"\b(?:ih_[\w-]{16,}|hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|r8_\w{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|xox[abeprs]-[\w-]{10,}|AKIA[0-9A-Z]{12,}|AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)"
)
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----).*?(?:(?=-----END)|\Z)", re.DOTALL)
_URL = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.-]{1,20})://(?P<rest>[^\s\"'<>]+)", re.IGNORECASE)
_QUERY = re.compile(r"(?<=[\w/])\?[\w.\[\]%-]{1,60}=[^\s\"'<>)]*")

# transformers warns with the part of a prompt that did not fit, lower-cased and re-spaced by its
# tokenizer, so that no comparison with the prompt itself would find it.
_TRUNCATED_PROMPT = re.compile(r"(truncated because CLIP can only handle sequences up to \d+ tokens:?).*")

_QUOTED_PATH = re.compile(r"""(?P<quote>["'])(?P<path>(?:/|[A-Za-z]:[\\/]|\\\\)[^"'\n]+)(?P=quote)""")
_PATH = re.compile(
    r"""(?:\bfile://|(?<![\w/.<\]\\])(?:[A-Za-z]:)?)(?:/(?!/)|\\{1,2}(?=\w)) [^\s"'<>|:;,*?()\[\]{}]+""",
    re.VERBOSE,
)


@lru_cache(maxsize=1024)
def is_sensitive_field(name: str) -> bool:
    """Tell whether the values of a field with this name are prompts, captions or secrets."""
    name = name.lower()
    return name in SENSITIVE_NAMES or any(word in name for word in SENSITIVE_FIELDS)


def sensitive_values(data: Any, *, is_sensitive: bool = False) -> Iterator[str]:
    """Yield each string in nested data that stands under the name of a sensitive field."""
    if isinstance(data, str):
        if is_sensitive:
            yield data
    elif isinstance(data, Mapping):
        for name, inner in data.items():
            yield from sensitive_values(inner, is_sensitive=is_sensitive or is_sensitive_field(str(name)))
    elif isinstance(data, list | tuple):
        for inner in data:
            yield from sensitive_values(inner, is_sensitive=is_sensitive)


def redact(text: str, *, sensitive: Iterable[str] = ()) -> str:
    """Return text without credentials, query strings, and the given strings in any spelling.

    Prompts and captions go into ``sensitive``; each is also found JSON-escaped, as Python would print
    it, in other case and with other spacing.
    """
    # The given strings come first: a pattern that cut a URL out of a prompt would hide the prompt
    # from the comparison and leave the rest of it standing.
    text = _without_strings(text, tuple(sensitive))
    text = _TRUNCATED_PROMPT.sub(rf"\1 {REDACTED}", text)
    text = _PRIVATE_KEY.sub(rf"\1{REDACTED}", text)
    if "://" in text:
        text = _URL.sub(_without_url_secrets, text)
    if "?" in text:
        text = _QUERY.sub(f"?{REDACTED}", text)
    text = _HEADER.sub(_without_value, text)
    text = _KEY_VALUE.sub(_without_value, text)
    text = _OPTION.sub(_without_value, text)
    text = _BEARER.sub(rf"\g<key>{REDACTED}", text)
    return _KNOWN_TOKEN.sub(REDACTED, text)


def redact_paths(text: str) -> str:
    """Return text with each absolute file path shortened to its last component."""
    text = _QUOTED_PATH.sub(lambda m: m["quote"] + _last_component(m["path"]) + m["quote"], text)
    return _PATH.sub(lambda m: _last_component(m[0]), text)


def _last_component(path: str) -> str:
    trimmed = path.rstrip("/\\")
    ending = "." if trimmed.endswith(".") else ""  # the full stop of a sentence
    parts = re.split(r"[/\\]", trimmed.removesuffix("."))
    return parts[-1] + ending


def _without_value(match: re.Match[str]) -> str:
    """Keep a value's quotes, so that JSON stays JSON."""
    opening = re.match(r"""[brf]?\\{0,3}["']""", match["value"], re.IGNORECASE)
    if opening is None:
        return match["key"] + REDACTED
    closing = opening[0].lstrip("brfBRF")
    return f"{match['key']}{opening[0]}{REDACTED}{closing}"


def _without_url_secrets(match: re.Match[str]) -> str:
    scheme, rest = match["scheme"], match["rest"]
    if scheme.lower() in {"http", "https"}:  # an @ further on is part of the path
        authority, mark, tail = _partition_any(rest, "/?#")
        tail = mark + tail
    else:  # database passwords are often written unquoted, with any of these in them
        at = rest.rfind("@") + 1
        authority, tail = rest[:at], rest[at:]
    if "@" in authority:
        authority = f"{REDACTED}@{authority.rpartition('@')[2]}"
    path, mark, _ = _partition_any(tail, "?#")
    return f"{scheme}://{authority}{path}{mark and mark + REDACTED}"


def _partition_any(text: str, marks: str) -> tuple[str, str, str]:
    """Split like ``str.partition``, at whichever of several marks comes first."""
    for position, character in enumerate(text):
        if character in marks:
            return text[:position], character, text[position + 1 :]
    return text, "", ""


def _without_strings(text: str, sensitive: tuple[str, ...]) -> str:
    if not sensitive:
        return text
    # A plain search for each string is many times faster than one pattern of all of them, and on
    # nearly every line it finds nothing.
    folded = _fold(text)
    hits = tuple(form for form in _forms(sensitive) if form in folded)
    return _pattern_of(hits).sub(REDACTED, text) if hits else text


def _fold(text: str) -> str:
    return " ".join(text.lower().split())


@lru_cache(maxsize=32)
def _forms(sensitive: tuple[str, ...]) -> tuple[str, ...]:
    """Return every spelling to look for, folded, the longest first."""
    forms: set[str] = set()
    for string in sensitive:
        for part in (string, *string.splitlines()):
            spellings = (
                part,
                json.dumps(part)[1:-1],
                json.dumps(part, ensure_ascii=False)[1:-1],
                repr(part)[1:-1],
                ascii(part)[1:-1],
            )
            forms.update(_fold(spelling) for spelling in spellings)
    return tuple(sorted((f for f in forms if len(f) >= MIN_SENSITIVE_LENGTH), key=lambda f: (-len(f), f)))


@lru_cache(maxsize=128)
def _pattern_of(forms: tuple[str, ...]) -> re.Pattern[str]:
    # What is redacted already matches as itself, so that the prompt "red" does not open it again.
    alternatives = [r"\s+".join(re.escape(word) for word in form.split()) for form in forms]
    return re.compile("|".join([re.escape(REDACTED), *alternatives]), re.IGNORECASE)
