"""The web server's entry point: one port for requests and for streams of events.

Ordinary requests run in a pool of lasting threads, so that database connections last too; Django's own
ASGI handler uses a new thread, and so a new connection, for each request. Paths that stream events go to that handler,
where a listener costs a coroutine and not a thread. ``docs/architecture.md`` has the measurements.
"""

import os
import re
from typing import Any

from a2wsgi import WSGIMiddleware
from django.core.asgi import get_asgi_application

from imagehub.wsgi import application as wsgi_application

THREADS = int(os.environ.get("IMAGEHUB_WEB_THREADS") or 8)

STREAMS = re.compile(r"^/api/jobs/[^/]+/events$")

_requests = WSGIMiddleware(wsgi_application, workers=THREADS)
_streams = get_asgi_application()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve one connection."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif STREAMS.match(scope["path"]):
        await _streams(scope, receive, send)
    else:
        await _requests(scope, receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
