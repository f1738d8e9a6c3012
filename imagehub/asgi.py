"""The web server's entry point: one port for requests and for streams of events.

Ordinary requests run in a pool of lasting threads, so that database connections last too; Django's own
ASGI handler uses a new thread, and so a new connection, for each request. A request enters the pool only when its body
is there, so that slow clients hold coroutines and not threads. Paths that stream events go to Django's ASGI handler,
where a listener costs a coroutine and not a thread. ``docs/architecture.md`` has the measurements.
"""

import asyncio
import json
import os
import re
import uuid
from collections.abc import Awaitable, Callable
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from a2wsgi import WSGIMiddleware
from django.core.asgi import get_asgi_application

from imagehub.security_headers import OUTSIDE_DJANGO
from imagehub.wsgi import application as wsgi_application

THREADS = int(os.environ.get("IMAGEHUB_WEB_THREADS") or 8)

STREAMS = re.compile(r"^/api/jobs/[^/]+/events$")

MAX_BODY_BYTES = 208 * 1024 * 1024
"""The largest upload (200 MiB) and what its form adds. Views have closer limits of their own."""

IN_MEMORY_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024

IDLE_SECONDS = float(os.environ.get("IMAGEHUB_WEB_BODY_SECONDS") or 15)
"""How long a client may take for the next part of its body."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_requests = WSGIMiddleware(wsgi_application, workers=THREADS)  # type: ignore[arg-type]
_streams = get_asgi_application()


class BodyRefused(Exception):
    """The body does not come, or does not end."""

    def __init__(self, status: int, title: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = {
            "type": "about:blank",
            "title": title,
            "status": status,
            "detail": detail,
            "code": code,
        }


class ClientGone(Exception):
    """Nobody waits for an answer any more."""


async def application(scope: Any, receive: Receive, send: Send) -> None:
    """Serve one connection."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    # WSGI cannot tell `X_Forwarded_For` from `X-Forwarded-For`: one is our proxy's, the other anybody's.
    scope = scope | {"headers": [(name, value) for name, value in scope["headers"] if b"_" not in name]}
    if STREAMS.match(scope["path"]) and not _has_body(scope):
        await _streams(scope, receive, send)
    elif not _has_body(scope):
        await _requests(scope, receive, send)
    else:
        try:
            with await _read_body(scope, receive) as body:
                await _requests(scope, _replay(body, receive), send)
        except BodyRefused as refusal:
            await _answer(scope, send, refusal.problem)
        except ClientGone:
            return


def _header(scope: Any, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _has_body(scope: Any) -> bool:
    return _header(scope, b"content-length") not in (b"", b"0") or bool(_header(scope, b"transfer-encoding"))


async def _read_body(scope: Any, receive: Receive) -> IO[bytes]:
    """Return the whole body, on disk if it is large.

    Raises:
        BodyRefused: it is too large, or the client stopped sending.
        ClientGone: the client went away.
    """
    declared = _header(scope, b"content-length")
    too_large = BodyRefused(
        413, "Content Too Large", "too_large", "The body is larger than any request may be."
    )
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise too_large
    body = SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - its user closes it
    size, more = 0, True
    while more:
        try:
            message = await asyncio.wait_for(receive(), IDLE_SECONDS)
        except TimeoutError:
            body.close()
            raise BodyRefused(408, "Request Timeout", "timeout", "The body did not come in time.") from None
        if message["type"] == "http.disconnect":
            body.close()
            raise ClientGone
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            body.close()
            raise too_large
        body.write(message.get("body", b""))
        more = message.get("more_body", False)
    body.seek(0)
    return body


def _replay(body: IO[bytes], receive: Receive) -> Receive:
    """Return a ``receive`` that gives a body again, and then what the connection says."""
    is_over = False

    async def replay() -> dict[str, Any]:
        nonlocal is_over
        if is_over:
            return await receive()
        chunk = body.read(CHUNK_BYTES)
        is_over = len(chunk) < CHUNK_BYTES
        return {"type": "http.request", "body": chunk, "more_body": not is_over}

    return replay


async def _answer(scope: Any, send: Send, problem: dict[str, Any]) -> None:
    """Answer with a problem document, before Django has seen the request, and close the connection."""
    request_id = uuid.uuid4().hex
    content = json.dumps(problem | {"instance": scope["path"], "request_id": request_id}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(content)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
        *((name.lower().encode(), value.encode()) for name, value in OUTSIDE_DJANGO.items()),
    ]
    await send({"type": "http.response.start", "status": problem["status"], "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
