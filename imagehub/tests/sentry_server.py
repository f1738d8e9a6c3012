"""A Sentry server on this machine, which keeps what it is told."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import brotli


class SentryServer(ThreadingHTTPServer):
    """Takes envelopes as Sentry's ingestion does (https://develop.sentry.dev/sdk/envelopes/)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.dsn = f"http://publickey@127.0.0.1:{self.server_port}/1"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all envelopes: the line behind each header that says so."""
        found = []
        for body in self.bodies:
            lines = body.split(b"\n")
            for header, payload in itertools.pairwise(lines):
                if b'"type":"event"' in header.replace(b" ", b""):
                    found.append(json.loads(payload))
        return found


class _Handler(BaseHTTPRequestHandler):
    server: SentryServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(
            brotli.decompress(body) if self.headers["Content-Encoding"] == "br" else body
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[SentryServer]:
    server = SentryServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
