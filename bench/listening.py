"""An app that an instance can be given: a stream of events that says nothing, at the address of the real one.

It is there so that web servers can be compared with many idle listeners. It touches no database.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from django.apps import AppConfig
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import path

HELLO = b": hello\n\n"
KEEP_ALIVE = b": still here\n\n"
SECONDS = 15.0


class Listening(AppConfig):
    name = "bench"
    label = "bench_listening"

    def ready(self) -> None:
        from imagehub import urls

        urls.urlpatterns.insert(0, path("api/jobs/<str:job>/events", events))  # type: ignore[arg-type]


class Follows:
    """What the shipped server sends when the thread that answered is free again."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(SECONDS)
            yield KEEP_ALIVE

    def close(self) -> None:
        """Nothing was held."""


def events(request: HttpRequest, job: str) -> HttpResponseBase:
    """Stream in whichever way the server can."""
    following = request.META.get("asgi.scope", {}).get("imagehub.stream")
    if following is not None:
        following.append(Follows())
        return HttpResponse(HELLO, content_type="text/event-stream")
    content = _without_thread() if isinstance(request, ASGIRequest) else _with_thread()
    return StreamingHttpResponse(content, content_type="text/event-stream")


async def _without_thread() -> AsyncIterator[bytes]:
    yield HELLO
    while True:
        await asyncio.sleep(SECONDS)
        yield KEEP_ALIVE


def _with_thread() -> Iterator[bytes]:
    yield HELLO
    while True:
        time.sleep(SECONDS)
        yield KEEP_ALIVE
