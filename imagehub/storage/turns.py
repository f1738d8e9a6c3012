"""Taking turns: what is made from a file is made by one thread of one process at a time."""

import fcntl
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from imagehub.errors import StillBusy
from imagehub.storage.media_folder import root

LOCKS = ".locks"
POLL_SECONDS = 0.01

_held = threading.local()


@contextmanager
def alone(key: str, *, wait_seconds: float = 30) -> Iterator[None]:
    """Hold the turn of a key, among all threads and processes that share the media root.

    The system takes the turn away from a process that dies. Some keys share one, so nobody may hold two.

    Raises:
        RuntimeError: this thread holds a turn already.
        StillBusy: another one has held it for all of ``wait_seconds``.
    """
    if getattr(_held, "key", None) is not None:
        raise RuntimeError("A thread that has one turn may not wait for another.")
    folder = root() / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    # As many files as a byte has values, so that they need no sweeping.
    number = hashlib.sha256(key.encode()).hexdigest()[:2]
    deadline = time.monotonic() + wait_seconds
    with (folder / number).open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StillBusy("This is being made already. Try again in a moment.") from None
                time.sleep(POLL_SECONDS)
        _held.key = key
        try:
            yield
        finally:
            _held.key = None
