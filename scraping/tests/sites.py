"""Web sites on loopback addresses, made of functions, that note who came when; and pictures to show there."""

import functools
import http.server
import io
import random
import threading
import time
from collections.abc import Callable

import PIL.Image

Page = Callable[["Visit"], None]


@functools.cache
def drawing(seed: int, size: tuple[int, int] = (240, 180), format: str = "PNG") -> bytes:  # noqa: A002
    """Return a picture of coloured tiles that looks like no other seed's."""
    chance = random.Random(seed)
    tiles = PIL.Image.new("RGB", (12, 9))
    tiles.putdata([tuple(chance.randrange(256) for _ in range(3)) for _ in range(12 * 9)])
    target = io.BytesIO()
    tiles.resize(size, PIL.Image.Resampling.NEAREST).save(
        target, format, **({"quality": 90} if format == "JPEG" else {})
    )
    return target.getvalue()


class Visit(http.server.BaseHTTPRequestHandler):
    """A request to a site."""

    server: "Site"
    protocol_version = "HTTP/1.1"
    timeout = 20

    def do_GET(self) -> None:
        site = self.server
        with site.lock:
            site.requests.append((time.time(), self.path))
            site.agents.add(self.headers["User-Agent"])
            site.busy += 1
            site.peak = max(site.peak, site.busy)
        self.is_busy = True
        try:
            time.sleep(site.latency)
            site.pages.get(self.path, missing)(self)
        finally:
            self.end()

    def end(self) -> None:
        """Count this request no more. Before its last bytes: whoever has them may be here again before we are."""
        if self.is_busy:
            self.is_busy = False
            with self.server.lock:
                self.server.busy -= 1

    def answer(
        self, body: bytes = b"", kind: str = "text/html", *, status: int = 200, **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end()
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Site(http.server.ThreadingHTTPServer):
    """A server at a loopback address of its own; pages are functions of a visit, by path."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), Visit)
        self.lock = threading.Lock()
        self.host, self.port = host, self.server_address[1]
        self.pages: dict[str, Page] = {"/robots.txt": missing}
        self.requests: list[tuple[float, str]] = []
        self.agents: set[str] = set()
        self.latency = 0.0
        self.busy = self.peak = 0
        self.connections = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def url(self, path: str = "/") -> str:
        return f"http://{self.host}:{self.port}{path}"

    def paths(self) -> list[str]:
        with self.lock:
            return [path for _, path in self.requests]

    def times(self, path: str) -> list[float]:
        with self.lock:
            return [at for at, asked in self.requests if asked == path]

    def show(self, path: str, body: bytes | str, kind: str = "", **headers: str) -> None:
        """Answer a path with a page or a picture."""
        data = body.encode() if isinstance(body, str) else body
        found = kind or ("text/html; charset=utf-8" if isinstance(body, str) else "image/png")
        self.pages[path] = lambda visit: visit.answer(data, found, **headers)

    def process_request(self, *arguments: object) -> None:
        with self.lock:
            self.connections += 1
        super().process_request(*arguments)

    def handle_error(self, *arguments: object) -> None:
        """Say nothing: clients that break off are what is tested."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def missing(visit: Visit) -> None:
    visit.answer(b"not here", status=404)


def endless(visit: Visit) -> None:
    """Send a picture that has no end, and does not say how long it is."""
    visit.send_response(200)
    visit.send_header("Content-Type", "image/png")
    visit.send_header("Connection", "close")
    visit.end_headers()
    visit.close_connection = True
    try:
        while True:
            visit.wfile.write(b"\x89PNG\r\n\x1a\n" + bytes(16_000))
    except OSError:
        pass


def after_refusals(count: int, page: Page, *, status: int = 429, **headers: str) -> Page:
    """Refuse so many times before showing a page."""
    left = [count]

    def show(visit: Visit) -> None:
        if left[0] > 0:
            left[0] -= 1
            visit.answer(status=status, **headers)
        else:
            page(visit)

    return show
