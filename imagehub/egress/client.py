"""The HTTP client for addresses that others name, such as webhooks and imports from the web.

Every redirect is vetted like the first address, and every connection is made by :class:`GuardedBackend`. No proxy and no
password is taken from the environment, no cookie is kept, and no connection outlives its request.
"""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import cast

import httpcore2
import httpx2

import imagehub
from imagehub.egress.connections import Deadline, GuardedBackend, LookUp, look_up
from imagehub.egress.policy import FetchFailed, Policy
from imagehub.egress.urls import vet_redirect, vet_url

MIB = 1024 * 1024
USER_AGENT = f"ImageHub/{imagehub.__version__}"
ENCODINGS = frozenset({"gzip", "deflate", "identity"})
"""What is undone of a body, once. The codecs of both give their output in pieces, so a small body cannot become a large one
in memory."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
FOLLOWED_METHODS = frozenset({"GET", "HEAD"})
"""What was sent to one address is not sent on to another: for all other methods a redirect is an answer like any other."""
KEPT_HEADERS = frozenset({"accept", "accept-language", "user-agent"})
"""What goes along to another host. The rest may be meant for the first one only."""


@dataclass(frozen=True)
class Limits:
    """What one request may take: seconds, bytes (of the body after it is decompressed), and redirects in a row."""

    connect_seconds: float = 5
    silence_seconds: float = 15
    total_seconds: float = 60
    header_bytes: int = 64 * 1024
    body_bytes: int = 20 * MIB
    redirects: int = 5


@dataclass(frozen=True)
class Answer:
    """The answer that a request ended with. Its body is read once, while the request is open."""

    url: str
    status: int
    headers: Mapping[str, str]
    redirects: tuple[str, ...]
    """The addresses that led here, the first one first."""
    _response: httpx2.Response
    _max_bytes: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the body, decompressed.

        Raises:
            FetchFailed: it is larger than the limit, it ends too soon or cannot be decompressed, or time is up.
        """
        size = 0
        with _failures():
            for chunk in self._response.iter_bytes():
                size += len(chunk)
                if size > self._max_bytes:
                    raise FetchFailed("body_too_large")
                yield chunk

    def read(self) -> bytes:
        """Return the body, decompressed. Raises as :meth:`chunks` does."""
        return b"".join(self.chunks())


@contextmanager
def open_url(
    url: str,
    *,
    policy: Policy,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    limits: Limits | None = None,
    authorities: ssl.SSLContext | None = None,
    resolve: LookUp = look_up,
) -> Iterator[Answer]:
    """Make one request and give its answer, whatever its status.

    ``authorities`` takes the place of those that this machine trusts, and ``resolve`` that of its resolver.

    Raises:
        BlockedAddress: the policy refuses the address, a redirect or what one of them resolves to. Nothing was sent there.
        FetchFailed: there is no answer, or none within the limits.
    """
    limits = limits or Limits()
    target = vet_url(url, policy)
    deadline = Deadline(limits.total_seconds)
    transport = _GuardedTransport(GuardedBackend(policy, deadline, resolve), authorities)
    timeout = httpx2.Timeout(limits.silence_seconds, connect=limits.connect_seconds)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    with httpx2.Client(transport=transport, trust_env=False, timeout=timeout, cookies=no_cookies) as client:
        sent = {"user-agent": USER_AGENT, "accept-encoding": "gzip, deflate"}
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        passed: list[str] = []
        while True:
            with _failures():
                request = client.build_request(method, target, headers=sent, content=content)
                response = client.send(request, stream=True)
            try:
                _check_headers(response, limits)
                location = response.headers.get("location") if response.status_code in REDIRECTS else None
                if location is None or method not in FOLLOWED_METHODS:
                    yield Answer(
                        url=target,
                        status=response.status_code,
                        headers=response.headers,
                        redirects=tuple(passed),
                        _response=response,
                        _max_bytes=limits.body_bytes,
                    )
                    return
            finally:
                with _failures():
                    response.close()
            passed.append(target)
            if len(passed) > limits.redirects:
                raise FetchFailed("redirects")
            target = vet_redirect(location, source=target, policy=policy)
            if httpx2.URL(target).origin != httpx2.URL(passed[-1]).origin:
                sent = {name: value for name, value in sent.items() if name in KEPT_HEADERS}


@cache
def _machine_authorities() -> ssl.SSLContext:
    """Return what this machine trusts, read once: that takes 30 ms."""
    return httpx2.create_ssl_context(trust_env=False)


class _GuardedTransport(httpx2.BaseTransport):
    """HTTP/1.1 over connections of a backend of ours: httpx's own transport has no place to put one."""

    def __init__(self, backend: GuardedBackend, authorities: ssl.SSLContext | None) -> None:
        context = authorities or _machine_authorities()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=context, network_backend=backend, max_keepalive_connections=0
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._pool.handle_request(
            httpcore2.Request(
                request.method,
                httpcore2.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(
            response.status,
            headers=response.headers,
            stream=_Body(cast(Iterable[bytes], response.stream)),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx2.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        if callable(close := getattr(self._stream, "close", None)):
            close()


def _check_headers(response: httpx2.Response, limits: Limits) -> None:
    """Refuse an answer by its head, before its body is read."""
    if sum(len(name) + len(value) + 4 for name, value in response.headers.raw) > limits.header_bytes:
        raise FetchFailed("headers_too_large")
    encodings = [item.strip().lower() for item in response.headers.get("content-encoding", "").split(",")]
    if encodings != [""] and (len(encodings) > 1 or encodings[0] not in ENCODINGS):
        raise FetchFailed("encoding")


@contextmanager
def _failures() -> Iterator[None]:
    """Name what went wrong on the way, without the words of libraries: those tell addresses."""
    try:
        yield
    except (httpcore2.TimeoutException, httpx2.TimeoutException):
        raise FetchFailed("timeout") from None
    except (httpcore2.NetworkError, httpx2.NetworkError):
        raise FetchFailed("unreachable") from None
    except httpx2.DecodingError:
        raise FetchFailed("encoding") from None
    except (httpcore2.ProtocolError, httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError):
        raise FetchFailed("protocol") from None
