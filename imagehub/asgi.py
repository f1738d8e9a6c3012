"""The web server's entry point: one port for requests and for streams of events.

Ordinary requests run in a pool of lasting threads, so that database connections last too; Django's own
ASGI handler uses a new thread, and so a new connection, for each request. A request enters the pool only when its body
is there, so that slow clients hold coroutines and not threads. Uploads have a pool of their own, and are read while they
come: who may not upload, or not now, is told so before the body is sent. A stream of events begins as an ordinary request, which
decides who may listen; when its thread is free again, the event loop sends what follows, so that a listener costs a coroutine and
not a thread. ``docs/architecture.md`` has the measurements.
"""

import asyncio
import json
import os
import re
import threading
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import aclosing, suppress
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from a2wsgi import WSGIMiddleware

from imagehub.security_headers import OUTSIDE_DJANGO
from imagehub.wsgi import application as wsgi_application

THREADS = int(os.environ.get("IMAGEHUB_WEB_THREADS") or 8)

MIB = 1024 * 1024
UPLOADS = {"/api/images/upload": 208 * MIB, "/api/loras": 4104 * MIB}
"""The largest bodies that are read while they come: the most that may be configured, and what a form adds."""
DOWNLOADS = re.compile(r"^/api/albums/[^/]+/archive$")

MAX_BODY_BYTES = 208 * MIB
"""Of every other body, and of uploads that do not declare their length. Views have closer limits of their own."""

IN_MEMORY_BYTES = MIB
CHUNK_BYTES = 64 * 1024
PIECE_BYTES = 256 * 1024

IDLE_SECONDS = float(os.environ.get("IMAGEHUB_WEB_BODY_SECONDS") or 15)
"""How long a client may take for the next part of its body."""

_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})
STALLED_SECONDS = float(os.environ.get("IMAGEHUB_WEB_DOWNLOAD_SECONDS") or 60)
"""How long a client may take for the next part of a download."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_requests = WSGIMiddleware(wsgi_application, workers=THREADS)  # type: ignore[arg-type]
_uploads = WSGIMiddleware(wsgi_application, workers=THREADS)  # type: ignore[arg-type]


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
    if DOWNLOADS.match(scope["path"]) and not _has_body(scope):
        await _download(scope, receive, send)
    elif not _has_body(scope):
        await _serve(scope, receive, send)
    elif _is_read_as_it_comes(scope):
        await _uploads(scope, _patient(receive), send)
    else:
        try:
            with await _read_body(scope, receive) as body:
                await _requests(_with_length_of(scope, body), _replay(body, receive), send)
        except BodyRefused as refusal:
            await _answer(scope, send, refusal.problem)
        except ClientGone:
            return


def _header(scope: Any, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _has_body(scope: Any) -> bool:
    return _header(scope, b"content-length") not in (b"", b"0") or bool(_header(scope, b"transfer-encoding"))


def _is_read_as_it_comes(scope: Any) -> bool:
    declared = _declared_length(scope)
    return declared is not None and declared <= UPLOADS.get(scope["path"], -1)


def _declared_length(scope: Any) -> int | None:
    declared = _header(scope, b"content-length")
    return int(declared) if declared.isdigit() else None


def _with_length_of(scope: Any, body: IO[bytes]) -> Any:
    """Tell the length of a body that is there: one that came in chunks did not declare it, and WSGI reads no more."""
    kept = [(name, value) for name, value in scope["headers"] if name not in _LENGTHS]
    return scope | {"headers": [*kept, (b"content-length", str(_size_of(body)).encode())]}


def _size_of(body: IO[bytes]) -> int:
    size = body.seek(0, os.SEEK_END)
    body.seek(0)
    return size


def _patient(receive: Receive) -> Receive:
    """Return a ``receive`` that ends with an error where a body does not go on, or its client has gone."""

    async def wait() -> dict[str, Any]:
        # The thread that reads is woken for each message, which costs more than to collect some here.
        parts, size, more = [], 0, True
        while more and size < PIECE_BYTES:
            async with asyncio.timeout(IDLE_SECONDS):
                message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("The client has gone.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
        return {"type": "http.request", "body": b"".join(parts), "more_body": more}

    return wait


async def _read_body(scope: Any, receive: Receive) -> IO[bytes]:
    """Return the whole body, on disk if it is large.

    Raises:
        BodyRefused: it is too large, or the client stopped sending.
        ClientGone: the client went away.
    """
    declared = _declared_length(scope)
    too_large = BodyRefused(
        413, "Content Too Large", "too_large", "The body is larger than any request may be."
    )
    if declared is not None and declared > MAX_BODY_BYTES:
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


async def _download(scope: Any, receive: Receive, send: Send) -> None:
    """Serve something large, and tell the thread that makes it when nobody takes it any more.

    The thread would not notice: what is sent to a client that has gone is thrown away, and one that has stopped reading
    is waited for. It finds the news as ``imagehub.gone`` in the scope.
    """
    gone = threading.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async def no_body() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send_in_time(message: dict[str, Any]) -> None:
        if not gone.is_set():
            try:
                await asyncio.wait_for(send(message), STALLED_SECONDS)
            except TimeoutError:
                gone.set()

    watcher = asyncio.create_task(watch())
    try:
        await _requests(scope | {"imagehub.gone": gone}, no_body, send_in_time)
    finally:
        watcher.cancel()


async def _serve(scope: Any, receive: Receive, send: Send) -> None:
    """Serve a request without a body. Any view may let its answer go on: what it puts into ``imagehub.stream`` follows."""
    following: list[Any] = []

    async def send_unfinished(message: dict[str, Any]) -> None:
        if following and message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if name not in _LENGTHS]
            message = message | {"headers": kept}
        elif following:
            message = message | {"more_body": True}
        await send(message)

    try:
        await _requests(scope | {"imagehub.stream": following}, receive, send_unfinished)
        for stream in following:
            await _follow(stream, receive, send)
    finally:
        for stream in following:
            stream.close()


async def _follow(stream: AsyncIterable[bytes], receive: Receive, send: Send) -> None:
    """Send what a stream brings, until it ends, its client has gone, or takes nothing any more."""

    async def pass_on() -> None:
        async with aclosing(aiter(stream)) as parts:  # type: ignore[type-var]
            async for part in parts:
                message = {"type": "http.response.body", "body": part, "more_body": True}
                await asyncio.wait_for(send(message), STALLED_SECONDS)
        await send({"type": "http.response.body", "body": b""})

    async def wait_for_the_end() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = {asyncio.create_task(pass_on()), asyncio.create_task(wait_for_the_end())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with suppress(TimeoutError):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
