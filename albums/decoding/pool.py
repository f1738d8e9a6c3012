"""The decoders of this process: programs that wait for pictures, and are replaced when one of them ends them."""

import atexit
import logging
import os
import queue
import select
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, SIGXCPU
from typing import TYPE_CHECKING, Any

from albums.decoding.refusals import DecoderUnavailable, ImpossiblePicture
from imagehub.jobs.protocol import decode, encode

if TYPE_CHECKING:
    from imagehub.config_schema import UploadsConfig

logger = logging.getLogger(__name__)

PICTURES_PER_DECODER = 200
"""After so many a decoder makes room for a fresh one, whatever the pictures left in it."""

START_SECONDS = 30.0
GIVE_UP_SECONDS = 15.0
WAIT_SECONDS = 60.0
"""A picture waits so long for a decoder before it is refused."""

FILE_BYTES_FACTOR = 4
"""A picture that is written again may take more bytes than it came with, but not any number."""

_MAX_ANSWER_BYTES = 64 * 1024
_SOURCE_ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = {
    "PYTHONPATH": str(_SOURCE_ROOT),
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
}
_PROGRAM = [sys.executable, "-P", "-s", "-m", "albums.decoding.child"]


class DecoderEnded(Exception):
    """A decoder ended before it had begun with the picture."""


class PoolClosed(Exception):
    """The pool was closed before the picture had its turn."""


class Decoder:
    """One child process. It belongs to one thread at a time."""

    def __init__(self, memory_bytes: int, file_bytes: int) -> None:
        """Start it, from a thread that outlives it: see ``imagehub.jobs.parent_death``."""
        self._process = subprocess.Popen(
            [*_PROGRAM, str(os.getpid()), str(memory_bytes), str(file_bytes)],
            bufsize=0,
            cwd="/",
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._is_ready = False
        self._pictures = 0
        self.is_usable = True

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            DecoderEnded: it had ended before; another one will do.
            ImpossiblePicture: it crashed over this request, or took too long.
        """
        self.is_usable = False
        if not self._is_ready:
            self._become_ready()
        try:
            self._requests.write(encode(request))
        except OSError as error:
            raise DecoderEnded from error
        answer = self._answer(seconds)
        if answer is None:
            code = self.end()
            if code == -SIGXCPU:
                raise _took_too_long()
            logger.warning("A decoder ended with status %s over a picture", code)
            raise ImpossiblePicture("The picture crashes the decoder.", code="decoder_crashed")
        self._pictures += 1
        self.is_usable = self._pictures < PICTURES_PER_DECODER and not answer.get("last")
        return answer

    def end(self) -> int:
        """End it, now, and return its exit status, or the negative number of the signal."""
        self.is_usable = False
        self._process.kill()
        self._requests.close()
        self._answers.close()
        with suppress(subprocess.TimeoutExpired):  # it hangs inside the kernel, on a dead disk perhaps
            return self._process.wait(GIVE_UP_SECONDS)
        return -SIGKILL

    def forget(self) -> None:
        """Let go of it without ending it: it belongs to the process that this one was forked from."""
        self._process.returncode = 0
        self._requests.close()
        self._answers.close()

    def _become_ready(self) -> None:
        try:
            answer = self._answer(START_SECONDS)
        except ImpossiblePicture:
            answer = None
        if answer is None:
            raise DecoderEnded
        self._is_ready = True

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """Return the next line, or None when there will be none."""
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        received = b""
        while not received.endswith(b"\n"):
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise _took_too_long()
            data = os.read(self._answers.fileno(), _MAX_ANSWER_BYTES)
            received += data
            if not data or len(received) > _MAX_ANSWER_BYTES:
                return None
        return decode(received)


def _took_too_long() -> ImpossiblePicture:
    return ImpossiblePicture("The picture takes too long to decode.", code="decoder_timeout")


class DecoderPool:
    """Some decoders, started beforehand. Any thread may use it."""

    def __init__(
        self, decoders: int, memory_bytes: int, file_bytes: int, *, starter: ThreadPoolExecutor
    ) -> None:
        """Start them from a thread of the starter, which outlives them."""
        self.settings = decoders, memory_bytes, file_bytes
        self._starter = starter
        self._lock = threading.Lock()
        self._running: set[Decoder] = set()
        self._idle: queue.LifoQueue[Future[Decoder] | None] = queue.LifoQueue()
        """Places with a decoder, or None once the pool is closed: whoever meets it leaves it to the next one."""
        self._is_closed = False
        for _ in range(decoders):
            self._idle.put(starter.submit(self._start))

    @property
    def pids(self) -> set[int]:
        """The process ids of the decoders there are now."""
        return {decoder.pid for decoder in list(self._running)}

    def run(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer of a decoder that was free, or became so.

        Raises:
            DecoderUnavailable: there was none in time.
            ImpossiblePicture: the picture ended the decoder, or took longer than the seconds given.
            PoolClosed: another pool will do.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        for _ in range(3 + self.settings[0]):  # all of them may have been killed while they waited
            try:
                place = self._idle.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if place is None:
                self._idle.put(None)
                raise PoolClosed
            try:
                return place.result(START_SECONDS).run(request, seconds)
            except (DecoderEnded, OSError, TimeoutError) as error:
                logger.warning("A decoder was not there when it was wanted: %s", type(error).__name__)
            finally:
                self._give_back(place)
        raise DecoderUnavailable("No decoder is free. Send the picture again later.")

    def close(self) -> None:
        """End the decoders that wait; the others end when they have their answer."""
        with self._lock:
            self._is_closed = True
        with suppress(queue.Empty):
            while True:
                place = self._idle.get_nowait()
                if place is not None:
                    with suppress(OSError, TimeoutError):
                        self._end(place.result(START_SECONDS))
        self._idle.put(None)

    def forget(self) -> None:
        """Let go of all decoders without ending them: they belong to the process this one was forked from."""
        for decoder in self._running:
            decoder.forget()

    def _start(self) -> Decoder:
        _, memory_bytes, file_bytes = self.settings
        decoder = Decoder(memory_bytes, file_bytes)
        self._running.add(decoder)
        return decoder

    def _end(self, decoder: Decoder) -> None:
        decoder.end()
        self._running.discard(decoder)

    def _give_back(self, place: Future[Decoder]) -> None:
        """Leave a place to the next picture, with a fresh decoder in it where the old one is of no more use."""
        decoder = place.result() if place.done() and place.exception() is None else None
        if decoder is not None and not decoder.is_usable:
            self._end(decoder)
        with self._lock:
            if not self._is_closed:
                if place.done() and (decoder is None or not decoder.is_usable):
                    place = self._starter.submit(self._start)
                self._idle.put(place)
                return
        if decoder is not None:
            self._end(decoder)


_lock = threading.Lock()
_pool: DecoderPool | None = None
_starter: ThreadPoolExecutor | None = None


def run(request: dict[str, Any], limits: "UploadsConfig") -> dict[str, Any]:
    """Have a decoder of this process carry out a request, within the limits in force.

    Raises:
        DecoderUnavailable: none was free in time.
        ImpossiblePicture: the picture ended the decoder, or took too long.
    """
    while True:
        try:
            return decoders(limits).run(request, limits.decode_seconds)
        except PoolClosed:  # because the limits changed
            continue


def decoders(limits: "UploadsConfig") -> DecoderPool:
    """Return the pool of this process for the limits in force; the one for other limits is closed."""
    global _pool, _starter
    settings = limits.decoders, limits.decoder_memory_bytes, limits.max_file_bytes * FILE_BYTES_FACTOR
    replaced = None
    with _lock:
        if _starter is None:
            _starter = ThreadPoolExecutor(1, thread_name_prefix="decoders")
        if _pool is None or _pool.settings != settings:
            replaced, _pool = _pool, DecoderPool(*settings, starter=_starter)
        pool = _pool
    if replaced is not None:
        replaced.close()
    return pool


def close() -> None:
    """End the decoders of this process; the next picture starts others."""
    global _pool
    with _lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.close()


def _begin_anew() -> None:
    """A forked process has neither the threads nor the children of the one it was forked from."""
    global _lock, _pool, _starter
    _lock = threading.Lock()
    if _pool is not None:
        _pool.forget()
    _pool = _starter = None


atexit.register(close)
os.register_at_fork(after_in_child=_begin_anew)
