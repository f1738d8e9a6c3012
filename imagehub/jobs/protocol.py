"""How a child program and its guard talk: JSON lines on two pipes of their own.

Both sides use this module, so it imports nothing but the standard library. Standard output and
standard error are never parsed; they belong to the run log.
"""

import json
import logging
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, BinaryIO, NoReturn, Self

EVENTS_FD = "IMAGEHUB_EVENTS_FD"
"""Environment variable with the file descriptor a child writes its events to."""

REQUESTS_FD = "IMAGEHUB_REQUESTS_FD"
"""Environment variable with the file descriptor a child reads its requests from."""

MAX_LINE_BYTES = 1024 * 1024
"""A longer line is foreign: it is skipped and counted."""

CHUNK_BYTES = 64 * 1024
"""Read at once: what a pipe holds on Linux."""

HEARTBEAT_SECONDS = 5.0
"""Between two signs of life of a program that has nothing else to say."""

VERSION = 1


class ExitCode(IntEnum):
    """Exit statuses with a meaning, after sysexits(3) where it has one."""

    FINISHED = 0
    BAD_REQUEST = 64
    BAD_DATA = 65
    MODEL_MISSING = 69
    BUG = 70
    BUSY = 73
    STORAGE = 74
    STOPPED = 75
    NOT_A_NUMBER = 77
    OUT_OF_MEMORY = 78
    INTERRUPTED = 130


STATUS_LOST = 256
"""Stands for the exit status when another part of the guard's process took it; no program can return it."""

_SENTENCES: dict[int, str] = {
    ExitCode.FINISHED: "It finished.",
    ExitCode.BAD_REQUEST: "It was asked for something it cannot do.",
    ExitCode.BAD_DATA: "The data it was given cannot be used.",
    ExitCode.MODEL_MISSING: "A model it needs is missing or unreadable.",
    ExitCode.BUG: "It failed in a way nobody foresaw; its run log says how.",
    ExitCode.BUSY: "Another process is at work where it has to be alone.",
    ExitCode.STORAGE: "It could not write its files.",
    ExitCode.STOPPED: "It stopped early and can go on from where it was.",
    ExitCode.NOT_A_NUMBER: "Its numbers ran out of range (NaN), so that going on made no sense.",
    ExitCode.OUT_OF_MEMORY: "The device ran out of memory.",
    ExitCode.INTERRUPTED: "It was interrupted before it could save.",
    STATUS_LOST: "It ended, and how is not known.",
}


@dataclass(frozen=True)
class ChildExit:
    """How a program ended: its exit status, or the negative number of the signal that ended it."""

    code: int
    is_ours: bool = False
    """The signal was sent from here, on purpose."""

    @property
    def name(self) -> str:
        """A short word for logs and rows: ``out_of_memory``, ``SIGKILL``, ``exit_3``."""
        if self.code == STATUS_LOST:
            return "unknown"
        with suppress(ValueError):
            return signal.Signals(-self.code).name if self.code < 0 else ExitCode(self.code).name.lower()
        return f"exit_{self.code}" if self.code > 0 else f"signal_{-self.code}"

    @property
    def description(self) -> str:
        """One sentence for a person."""
        if self.code >= 0:
            return _SENTENCES.get(self.code, f"It ended with exit status {self.code}.")
        if self.is_ours:
            return f"It was ended from here ({self.name})."
        if self.code == -signal.SIGKILL:
            return "It was killed from outside (SIGKILL); most likely the machine ran out of memory."
        if -self.code in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            return f"Something else asked it to end ({self.name})."
        return f"It crashed ({self.name})."


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as one line.

    Raises:
        ValueError: the message holds a number that JSON has no word for (NaN, infinity).
    """
    return json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the message in a line, or None when the line holds none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


class LineBuffer:
    """Collects bytes and gives back whole messages; counts what was no message."""

    def __init__(self) -> None:
        self.skipped = 0
        self._pending = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take bytes as they arrived and return the messages they completed."""
        *lines, rest = data.split(b"\n")
        messages = []
        for line in lines:
            self._pending += line
            if self._overlong or len(self._pending) > MAX_LINE_BYTES:
                self.skipped += 1
            elif self._pending.strip():
                message = decode(bytes(self._pending))
                if message is None:
                    self.skipped += 1
                else:
                    messages.append(message)
            self._pending.clear()
            self._overlong = False
        self._pending += rest
        if len(self._pending) > MAX_LINE_BYTES:
            self._pending.clear()
            self._overlong = True
        return messages

    def close(self) -> None:
        """Count what was left unfinished at the end of the stream."""
        if self._pending.strip() or self._overlong:
            self.skipped += 1
        self._pending.clear()
        self._overlong = False


class Channel:
    """The child's end: ``emit`` events, and read ``requests`` until the guard closes the pipe."""

    def __init__(self, events: BinaryIO, requests: BinaryIO) -> None:
        self._events = events
        self._requests = requests
        self._lock = threading.Lock()
        self._sequence = 0

    @classmethod
    def from_environment(cls) -> Self:
        """Open the pipes the guard passed on; by hand in a shell, standard input and output serve.

        Without a guard nothing else may print to standard output, so it is redirected to standard error. A launcher that
        stands between the guard and this program, and passes no pipes on, is asked for its own (Linux).
        """
        if EVENTS_FD in os.environ:
            events = os.fdopen(_inherited(EVENTS_FD, os.O_WRONLY), "wb", buffering=0)
            requests = os.fdopen(_inherited(REQUESTS_FD, os.O_RDONLY), "rb")
            return cls(events, requests)
        events = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(events, sys.stdin.buffer)

    def emit(self, event: str, **fields: Any) -> None:
        """Send one event. Safe to call from any thread; lines of two threads never mix."""
        with self._lock:
            self._sequence += 1
            line = encode(
                {"v": VERSION, "seq": self._sequence, "ts": round(time.time(), 3), "event": event} | fields
            )
            view = memoryview(line)
            while view:
                written = self._events.write(view)
                view = view[written or 0 :]

    @contextmanager
    def alive(self, event: str = "heartbeat", **fields: Any) -> Iterator[None]:
        """Send an event every few seconds, from a thread of its own, for as long as the block lasts: a guard ends what is silent."""
        is_over = threading.Event()

        def beat() -> None:
            with suppress(BrokenPipeError):  # the main thread meets it at its next event
                while not is_over.wait(HEARTBEAT_SECONDS):
                    self.emit(event, **fields)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yield requests as they come; ends when the guard is gone."""
        for line in self._requests:
            message = decode(line)
            if message is not None:
                yield message


def _inherited(variable: str, mode: int) -> int:
    """Return the descriptor of a pipe that the environment names; where it was closed on the way, the parent's."""
    descriptor = int(os.environ.pop(variable))
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return descriptor
    return os.open(f"/proc/{os.getppid()}/fd/{descriptor}", mode | os.O_CLOEXEC)


class GuardChannel:
    """The guard's end: sends requests and takes events, and waits for neither longer than it is told."""

    def __init__(self) -> None:
        self._lines = LineBuffer()
        self._outgoing = bytearray()
        self._events: int | None
        self._requests: int | None
        self._events, child_events = os.pipe()
        child_requests, self._requests = os.pipe()
        os.set_blocking(self._events, False)
        os.set_blocking(self._requests, False)
        self.child_ends: tuple[int, ...] = (child_events, child_requests)
        self.environment = {EVENTS_FD: str(child_events), REQUESTS_FD: str(child_requests)}

    @property
    def is_dry(self) -> bool:
        """Every process that could write events has closed the pipe, and all of them were read."""
        return self._events is None

    @property
    def skipped(self) -> int:
        return self._lines.skipped

    def send(self, message: dict[str, Any]) -> None:
        """Send a request at once as far as the pipe has room; ``exchange`` sends the rest.

        A child that closed its end gets nothing, which is no error here.
        """
        line = encode(message)
        if self._requests is not None:
            self._outgoing += line
            self._write()

    def exchange(self, seconds: float) -> list[dict[str, Any]]:
        """Wait up to some seconds for either pipe, once, and return the events that came."""
        poller = select.poll()
        if self._events is not None:
            poller.register(self._events, select.POLLIN)
        if self._requests is not None and self._outgoing:
            poller.register(self._requests, select.POLLOUT)
        messages: list[dict[str, Any]] = []
        for descriptor, _ in poller.poll(seconds * 1000):
            if descriptor == self._requests:
                self._write()
            else:
                messages += self._read(descriptor)
        return messages

    def close_child_ends(self) -> None:
        """Leave the child's ends to the child, without which its exit would not end the stream."""
        for descriptor in self.child_ends:
            os.close(descriptor)
        self.child_ends = ()

    def close(self) -> None:
        """Close both pipes; what was not sent is forgotten."""
        for descriptor in (self._events, self._requests, *self.child_ends):
            if descriptor is not None:
                os.close(descriptor)
        self._events = self._requests = None
        self.child_ends = ()
        self._outgoing.clear()
        self._lines.close()

    def _read(self, descriptor: int) -> list[dict[str, Any]]:
        try:
            data = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return []
        if not data:
            os.close(descriptor)
            self._events = None
        return self._lines.feed(data)

    def _write(self) -> None:
        while self._outgoing and self._requests is not None:
            try:
                del self._outgoing[: os.write(self._requests, self._outgoing[:CHUNK_BYTES])]
            except BlockingIOError:
                return
            except BrokenPipeError:
                os.close(self._requests)
                self._requests = None
                self._outgoing.clear()


def end_with(main: Callable[[], int]) -> NoReturn:
    """Run a child program, and end the process with the status that it returns.

    Not by ``sys.exit``: a thread that listens to the guard may still wait for a request that nobody will send, and nothing that
    a library has left running keeps a finished program alive.
    """
    try:
        status = main()
    except KeyboardInterrupt:
        status = ExitCode.INTERRUPTED
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)
