"""Where politeness is remembered. The store in memory serves one process; one that all workers share keeps this shape."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from scraping.politeness.hosts import HostState
from scraping.politeness.recent import Recent

T = TypeVar("T")

MOST_FILES = 2_000
"""Kept in memory. The one that was not asked for longest goes first."""

MOST_FILE_BYTES = 64 * 1024 * 1024
"""Of the bodies of those files."""


@dataclass(frozen=True)
class PolicyFile:
    """A file in which a site says what it allows, as it was fetched."""

    status: int | None
    """None: there was no answer."""
    body: bytes
    fetched_at: float
    """A POSIX time."""


class Store(Protocol):
    """What ``Gatekeeper`` needs to remember."""

    def change(self, host: str, step: Callable[[HostState], T]) -> T:
        """Let ``step`` change the state of a host, and return what it returns.

        Nobody else sees or changes that state meanwhile: this is what makes a slot be given once.
        """

    def claim_fetch(self, origin: str, path: str, *, now: float, until: float) -> bool:
        """Tell whether the caller is the one to fetch a file: nobody else is until the time that was given."""

    def release_fetch(self, origin: str, path: str) -> None:
        """Let somebody else fetch a file: whoever was to has not."""

    def file(self, origin: str, path: str) -> PolicyFile | None:
        """Return what was last fetched, however old, or None."""

    def keep_file(self, origin: str, path: str, file: PolicyFile) -> None:
        """Remember a file instead of what was there before, and that nobody fetches it any more."""


class MemoryStore:
    """A store for one process. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, HostState] = {}
        self._files: Recent[tuple[str, str], PolicyFile] = Recent(most=MOST_FILES, most_bytes=MOST_FILE_BYTES)
        self._fetches: dict[tuple[str, str], float] = {}

    def change(self, host: str, step: Callable[[HostState], T]) -> T:
        with self._lock:
            return step(self._hosts.setdefault(host, HostState()))

    def claim_fetch(self, origin: str, path: str, *, now: float, until: float) -> bool:
        with self._lock:
            if self._fetches.get((origin, path), 0.0) > now:
                return False
            self._fetches[origin, path] = until
            return True

    def release_fetch(self, origin: str, path: str) -> None:
        with self._lock:
            self._fetches.pop((origin, path), None)

    def file(self, origin: str, path: str) -> PolicyFile | None:
        with self._lock:
            return self._files.get((origin, path))

    def keep_file(self, origin: str, path: str, file: PolicyFile) -> None:
        with self._lock:
            self._fetches.pop((origin, path), None)
            self._files.put((origin, path), file, len(file.body))
