"""A site of one page and some pictures, for crawls."""

import io
import random
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import PIL.Image

ADDRESS = "127.77.0.1"
PICTURES = 12
SIDE = 96


def picture(seed: int, side: int = SIDE) -> bytes:
    """Return a PNG of coarse noise that no other seed gives."""
    noise = random.Random(seed).randbytes(3 * 16 * 16)
    small = PIL.Image.frombytes("RGB", (16, 16), noise)
    buffer = io.BytesIO()
    small.resize((side, side), PIL.Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


class _Visit(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name == "robots.txt":
            self._send(404, "text/plain", b"")
        elif not name.endswith(".png"):  # each page shows the same pictures under addresses of its own
            shown = "".join(f'<img src="/{name}-{number}.png">' for number in range(PICTURES))
            self._send(200, "text/html", f"<html><body>{shown}</body></html>".encode())
        else:
            self._send(200, "image/png", picture(zlib.crc32(name.encode())))

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[str]:
    """Serve the site while the block lasts; yield its host and port."""
    server = ThreadingHTTPServer((ADDRESS, 0), _Visit)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{ADDRESS}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
