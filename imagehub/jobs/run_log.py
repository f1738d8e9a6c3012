"""The file a child's output ends up in: redacted, bounded, and never a reason for a job to fail."""

import logging
import os
import re
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from imagehub.context import job_id, request_id
from imagehub.redaction import redact

if TYPE_CHECKING:
    from imagehub.jobs.models import Job

logger = logging.getLogger(__name__)

MAX_LINE_CHARACTERS = 8 * 1024
"""What is written of one line."""

MAX_PENDING_BYTES = 64 * 1024
"""What is kept of one line while it is not finished."""

MAX_SENSITIVE = 128
"""A program that lives on sees many prompts; those of the latest jobs are looked for."""

_JOB_BEGINS = "--- job "

_LEFT_OUT = b"[earlier lines left out]\n"

# Colours and cursor movements. They go before redaction: a colour in the middle of a password hides it.
_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])|[\x00-\x08\x0b-\x1f\x7f]"
)


class RunLog:
    r"""Appends a program's output to a file, line by line.

    The first ``limit_bytes`` stay in ``<name>.1`` and the latest in ``<name>``, so that both how a run
    began and how it ended can be read; more than twice the limit is never on disk. Of consecutive
    updates that end in ``\r`` (progress bars) only the last is written. Safe to use from any thread.

    No file is held open between writes. A full disk costs lines, not the job.
    """

    def __init__(self, path: Path, *, limit_bytes: int, sensitive: Iterable[str] = ()) -> None:
        self.path = path
        self.head_path = path.with_name(path.name + ".1")
        self._limit = limit_bytes
        self._sensitive: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._pending = bytearray()
        self._job = ""
        self._update = b""
        self._dropped = 0
        self._update_dropped = 0
        self._has_warned = False
        self.hide(sensitive)

    def hide(self, sensitive: Iterable[str]) -> None:
        """Look for these strings as well from now on."""
        with self._lock:
            known = dict.fromkeys(self._sensitive) | dict.fromkeys(sensitive)
            self._sensitive = tuple(known)[-MAX_SENSITIVE:]

    def write(self, data: bytes) -> None:
        """Take bytes as they arrived; whole lines are written at once."""
        with self._lock:
            *lines, rest = data.split(b"\n")
            finished = []
            for line in lines:
                self._collect(line)
                finished.append(self._take_line())
            self._collect(rest)
            self._append(finished)

    def write_line(self, text: str) -> None:
        """Add a line of the guard's own, after whatever the program left unfinished."""
        with self._lock:
            lines = [self._take_line()] if self._has_rest() else []
            self._append([*lines, self._encode(text)])

    def begin_job(self) -> None:
        """Add a line that names the job at hand and the request it came from, unless it is the same as before."""
        if (job := job_id.get()) and job != self._job:
            self._job = job
            self.write_line(f"{_JOB_BEGINS}{job} of request {request_id.get() or '-'}")

    def flush(self) -> None:
        """Write the unfinished last line, if there is one."""
        with self._lock:
            if self._has_rest():
                self._append([self._take_line()])

    def carry(self, descriptor: int, *, is_over: Callable[[], bool]) -> None:
        """Write what a non-blocking pipe brings until it ends or ``is_over``; then close it.

        Runs on a thread of its own, so that a program never waits for somebody to read what it prints.
        """
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        try:
            while not is_over():
                if not poller.poll(100):
                    continue
                with suppress(BlockingIOError):
                    data = os.read(descriptor, MAX_PENDING_BYTES)
                    if not data:
                        break
                    self.write(data)
        finally:
            os.close(descriptor)
            self.flush()

    def _has_rest(self) -> bool:
        return bool(self._pending or self._update)

    def _collect(self, data: bytes) -> None:
        """Add bytes without a line feed; an update that another one follows is forgotten."""
        *updates, rest = data.split(b"\r")
        for update in updates:
            self._keep(update)
            if self._pending.strip():
                self._update, self._update_dropped = bytes(self._pending), self._dropped
            self._pending.clear()
            self._dropped = 0
        self._keep(rest)

    def _keep(self, data: bytes) -> None:
        room = MAX_PENDING_BYTES - len(self._pending)
        self._pending += data[:room]
        self._dropped += max(0, len(data) - room)

    def _take_line(self) -> bytes:
        line, dropped = self._update, self._update_dropped
        if self._pending.strip():
            line, dropped = bytes(self._pending), self._dropped
        self._pending.clear()
        self._update = b""
        self._dropped = self._update_dropped = 0
        return self._encode(line.decode("utf-8", "replace"), dropped=dropped)

    def _encode(self, text: str, *, dropped: int = 0) -> bytes:
        text = redact(_CONTROL.sub("", text), sensitive=self._sensitive)
        if dropped:
            # Where the line was cut, the beginning of a prompt may stand that no comparison finds.
            longest = max(map(len, self._sensitive), default=0)
            text = text[: max(0, len(text) - 2 * longest)]
        limit = min(MAX_LINE_CHARACTERS, max(1, self._limit // 16))
        cut = len(text) - limit
        if cut > 0 or dropped:
            text = f"{text[:limit]} [line cut]"
        return text.encode("utf-8", "replace") + b"\n"

    def _append(self, lines: list[bytes]) -> None:
        try:
            self._append_within_limit(lines)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("The run log %s cannot be written: %s", self.path.name, error.strerror)

    def _append_within_limit(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        size = self.path.stat().st_size if self.path.exists() else 0
        block = bytearray()
        for line in lines:
            if size + len(block) + len(line) > self._limit:
                self._write(block)
                block.clear()
                size = self._make_room()
            block += line
        self._write(block)

    def _write(self, block: bytes | bytearray) -> None:
        if block:
            with self.path.open("ab") as file:
                file.write(block)

    def _make_room(self) -> int:
        """Put the first full file aside, or shorten a later one to its second half; return its size."""
        if not self.path.exists():
            return 0
        if not self.head_path.exists():
            self.path.replace(self.head_path)
            return 0
        # In place, because a second file beside it would for a moment take more than the limit.
        with self.path.open("r+b") as file:
            file.seek(-min(self._limit // 2, self.path.stat().st_size), 2)
            tail = file.read().partition(b"\n")[2]
            file.seek(0)
            file.write(_LEFT_OUT + tail)
            return file.truncate()


def tail_of_job(path: Path, job: UUID, *, lines: int) -> list[str]:
    """Return the last lines that a log which several jobs share has of one of them; none where nothing is kept of it."""
    kept: deque[str] = deque(maxlen=lines)
    begins = f"{_JOB_BEGINS}{job} "
    is_ours = False
    for part in (path.with_name(path.name + ".1"), path):
        if not part.is_file():
            continue
        with part.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(_JOB_BEGINS):
                    is_ours = line.startswith(begins)
                if is_ours:
                    kept.append(line.rstrip("\n"))
    return list(kept)


def tail_of_worker(job: "Job", program: str, *, lines: int) -> list[str]:
    """Return the last lines about a job in ``<program>-<pid>.log``, which the jobs of a worker share; none of another machine's."""
    from imagehub.roots import logs_root  # knows Django, which the rest of this file does not need

    host, _, pid = job.worker.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return []
    return tail_of_job(logs_root() / f"{program}-{pid}.log", job.pk, lines=lines)


def forget_old(folder: Path, *, older_than: timedelta) -> int:
    """Delete the logs in a folder to which nothing was added for so long; return how many there were."""
    cutoff = time.time() - older_than.total_seconds()
    old = [path for path in folder.glob("*.log*") if path.is_file() and path.stat().st_mtime < cutoff]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
