"""Ways in which a site says that its pictures are not for machines to learn from.

``noai`` and ``noimageai`` in a header ``X-Robots-Tag`` or a meta element (https://www.deviantart.com/team/journal/UPDATE-All-Deviations-Are-Opted-Out-of-AI-Datasets-934500371),
and the TDM Reservation Protocol (https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/): a header, a meta
element, and a file for the whole site.
"""

import json
from collections.abc import Iterable
from typing import Self
from urllib.parse import urlsplit

from scraping.politeness.robots import PRODUCT
from scraping.politeness.store import PolicyFile

TDM_PATH = "/.well-known/tdmrep.json"
MAX_TDM_BYTES = 256 * 1024
MAX_TDM_RULES = 1_000

DIRECTIVES = frozenset({"noai", "noimageai"})
_OURS = PRODUCT.lower()


def opted_out_by_headers(headers: Iterable[tuple[str, str]]) -> str:
    """Return which header of an answer opts out, or an empty text. A tag for another robot's name is not for us."""
    for name, value in headers:
        name = name.lower()
        if name == "x-robots-tag" and _tag_opts_out(value):
            return "x_robots_tag"
        if name == "tdm-reservation" and value.strip() == "1":
            return "tdm_header"
    return ""


def opted_out_by_meta(elements: Iterable[tuple[str, str]]) -> str:
    """Return which meta element of a page, given as names and contents, opts out, or an empty text."""
    for name, content in elements:
        name = name.strip().lower()
        if name in ("robots", _OURS) and _directives(content) & DIRECTIVES:
            return "meta_robots"
        if name == "tdm-reservation" and content.strip() == "1":
            return "tdm_meta"
    return ""


class TdmRules:
    """The file of the TDM Reservation Protocol: which parts of a site are reserved."""

    def __init__(self, rules: Iterable[tuple[str, bool]]) -> None:
        self._rules = sorted(rules, key=lambda rule: len(rule[0]), reverse=True)

    @classmethod
    def read(cls, file: PolicyFile) -> Self:
        """Understand a file. One that is missing, or no such file, reserves nothing."""
        if file.status is None or not 200 <= file.status < 300 or len(file.body) > MAX_TDM_BYTES:
            return cls(())
        try:
            content = json.loads(file.body)
        except (ValueError, RecursionError):
            return cls(())
        entries = content if isinstance(content, list) else [content]
        return cls(
            (entry["location"], entry.get("tdm-reservation") in (1, "1"))
            for entry in entries[:MAX_TDM_RULES]
            if isinstance(entry, dict) and isinstance(entry.get("location"), str)
        )

    def reserves(self, url: str) -> bool:
        """Tell whether the longest pattern that fits an address reserves it."""
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return next((is_reserved for pattern, is_reserved in self._rules if matches(pattern, path)), False)


def matches(pattern: str, path: str) -> bool:
    """Tell whether a pattern of RFC 9309 (``*`` for anything, ``$`` for the end) fits the beginning of a path.

    Not a regular expression: the time does not grow with what a stranger writes into a pattern.
    """
    is_whole = pattern.endswith("$")
    first, *pieces = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    place = len(first)
    if not pieces:
        return not is_whole or place == len(path)
    last = pieces.pop() if is_whole else ""
    for piece in pieces:
        found = path.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return path.endswith(last) and len(path) - len(last) >= place


def _tag_opts_out(value: str) -> bool:
    robot, colon, rest = value.partition(":")
    if colon and "," not in robot and robot.strip().lower() not in ("unavailable_after", "max-snippet"):
        return robot.strip().lower() in (_OURS, "*") and bool(_directives(rest) & DIRECTIVES)
    return bool(_directives(value) & DIRECTIVES)


def _directives(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(",")}
