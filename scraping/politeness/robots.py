"""robots.txt as RFC 9309 has it. Protego reads the file; what a missing or broken one means is decided here."""

import math
from typing import Self

from protego import Protego

from scraping.politeness.store import PolicyFile

PATH = "/robots.txt"
MAX_BYTES = 500 * 1024
"""What lies behind is ignored (RFC 9309, 2.5)."""

MAX_REDIRECTS = 5
"""After more the file counts as unavailable (RFC 9309, 2.3.1.2)."""

CACHE_SECONDS = 24 * 3600.0
"""RFC 9309, 2.4."""

UNREACHABLE_CACHE_SECONDS = 600.0
"""A server that could not be reached is asked again sooner."""

PRODUCT = "ImageHub"
"""The name that a group in robots.txt, or an opt-out, calls us by."""


class Robots:
    """What a site allows us. Built from a file as it was fetched."""

    def __init__(self, rules: Protego | None, *, is_unreachable: bool = False) -> None:
        self._rules = rules
        self.is_unreachable = is_unreachable
        self.crawl_delay = _delay(rules) if rules else 0.0
        """Seconds between two requests; 0 where the file does not say."""

    @classmethod
    def read(cls, file: PolicyFile) -> Self:
        """Understand a file, or its absence: 4xx allows all, 5xx and silence forbid all (RFC 9309, 2.3.1).

        429 is no absence: the server has the file and is busy, which counts as 5xx, as Google does
        (https://developers.google.com/search/docs/crawling-indexing/robots/robots_txt).
        """
        if is_unreachable(file):
            return cls(None, is_unreachable=True)
        if file.status is None or not 200 <= file.status < 300:
            return cls(None)
        return cls(Protego.parse(file.body[:MAX_BYTES].decode("utf-8-sig", "replace")))

    def allows(self, url: str) -> bool:
        """Tell whether an address may be fetched. The longest rule of our own group decides, else of that of all."""
        if self.is_unreachable:
            return False
        return self._rules is None or self._rules.can_fetch(url, PRODUCT)


def is_unreachable(file: PolicyFile) -> bool:
    """Tell whether there was no answer, or one that says nothing about the file."""
    return file.status is None or file.status >= 500 or file.status == 429


def is_stale(file: PolicyFile, now: float) -> bool:
    """Tell whether a file is to be fetched again. ``now`` is a POSIX time."""
    keep = UNREACHABLE_CACHE_SECONDS if is_unreachable(file) else CACHE_SECONDS
    return not file.fetched_at <= now < file.fetched_at + keep


def _delay(rules: Protego) -> float:
    delay = rules.crawl_delay(PRODUCT) or 0.0
    rate = rules.request_rate(PRODUCT)
    if rate is not None and rate.requests > 0:
        delay = max(delay, rate.seconds / rate.requests)
    return delay if math.isfinite(delay) and delay > 0 else 0.0
