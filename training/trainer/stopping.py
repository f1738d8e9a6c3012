"""How a training is asked to end: by a signal, or by a request of its guard."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopping(Exception):
    """The training was asked to end, at a point where nothing is half done."""


class Interrupted(BaseException):
    """It was asked to end at once. Not an Exception, so that no library swallows it."""


class _Broken(BaseException):
    """Breaks off what may be broken off. Not an Exception either."""


class Stop:
    """Whether somebody asked, and how. Safe to use from any thread and from a signal handler."""

    def __init__(self) -> None:
        self._is_requested = threading.Event()
        self._wants_samples = threading.Event()
        self._is_breakable = False
        self.save = True
        """Whether what was learned is to be kept."""

    @property
    def is_requested(self) -> bool:
        return self._is_requested.is_set()

    def request(self, *, save: bool = True) -> None:
        """Ask for the end after this step. Whoever asks not to save has the last word."""
        self.save = self.save and save
        self._is_requested.set()

    def check(self) -> None:
        """Raise when the end was asked for.

        Raises:
            Stopping: it was.
        """
        if self.is_requested:
            raise Stopping

    def ask_for_samples(self) -> None:
        """Have sample pictures made after this step."""
        self._wants_samples.set()

    def take_samples_request(self) -> bool:
        """Tell whether somebody asked for sample pictures since this was last asked."""
        wanted = self._wants_samples.is_set()
        self._wants_samples.clear()
        return wanted

    def listen_to_signals(self) -> None:
        """Let SIGTERM and Ctrl-C ask for the end, and a second one of them not wait for it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Let a signal break off what the block does, because nothing in it needs to be finished.

        Raises:
            Stopping: one came.
        """
        self.check()
        self._is_breakable = True
        try:
            yield
        except _Broken:
            raise Stopping from None
        finally:
            self._is_breakable = False

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self.is_requested:
            raise Interrupted
        self.request()
        if self._is_breakable:
            raise _Broken
