"""The worker that gunicorn runs ``imagehub.asgi`` in: uvicorn, with the rules that the supervisor gives it."""

from typing import Any

from uvicorn_worker import UvicornWorker


class WebWorker(UvicornWorker):
    """Serves requests and streams of events on one event loop. Gunicorn's own workers hold a thread for each stream."""

    CONFIG_KWARGS: dict[str, Any] = {
        "http": "httptools",
        # Whom to believe about a client's address is decided once, in imagehub/client_address.py.
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        # Streams of events never end by themselves; their listeners come back.
        "timeout_graceful_shutdown": 5,
    }
