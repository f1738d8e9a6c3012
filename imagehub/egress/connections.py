"""Connections of the guarded client: to addresses that were looked at, within the time that is left."""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore2

from imagehub.egress.policy import FetchFailed, Policy

LookUp = Callable[[str, int], list[str]]


def look_up(host: str, port: int) -> list[str]:
    """Return all addresses of a name, IPv4 and IPv6; a name that has none has an empty list."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Deadline:
    """The end of all that one request may take, in seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Return the seconds that are left, or fewer.

        Raises:
            FetchFailed: none is.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchFailed("timeout")
        return left if at_most is None else min(left, at_most)


class TimedStream(httpcore2.NetworkStream):
    """A connection that ends at a deadline, however slowly the other side goes on."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class GuardedBackend(httpcore2.NetworkBackend):
    """Opens connections where the policy lets it, and to nothing else: no second look-up, no sockets of this machine."""

    def __init__(self, policy: Policy, deadline: Deadline, resolve: LookUp) -> None:
        self._policy = policy
        self._deadline = deadline
        self._resolve = resolve
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first of a host's addresses that answers.

        Raises:
            BlockedAddress: the policy refuses the host, the port or one of the addresses.
            FetchFailed: the name has no address, or time is up.
        """
        self._policy.check_connection(host, port, [])
        addresses = self._look_up(host, port, timeout)
        if not addresses:
            raise FetchFailed("unresolved")
        self._policy.check_connection(host, port, addresses)
        problem: Exception | None = None
        for address in addresses:
            try:
                stream = self._sockets.connect_tcp(
                    address, port, self._deadline.left(timeout), socket_options=socket_options
                )
                return TimedStream(stream, self._deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                problem = error
        raise problem or FetchFailed("unresolved")

    def _look_up(self, host: str, port: int, timeout: float | None) -> list[str]:
        """Look a name up on a thread of its own: whoever answers for a name can be slow, and no call here ends sooner."""
        answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        threading.Thread(
            target=lambda: answers.put(self._resolve(host, port)), name="look-up", daemon=True
        ).start()
        try:
            return answers.get(timeout=self._deadline.left(timeout))
        except queue.Empty:
            raise FetchFailed("timeout") from None
