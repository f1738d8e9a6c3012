"""``python -m bench.scraping_server FOLDER PORT HOSTS PAGES PICTURES``: serves the web of :mod:`bench.scraping_site`.

One event loop listens at the addresses of all hosts, and notes for each when it was asked and how many requests were open. Of
its parent it takes lines: ``reset`` forgets all that was noted, ``report`` answers with one line of JSON. It ends with its
standard input.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from bench.scraping_site import RETRY_AFTER_SECONDS, File, Web

ROBOTS = b"User-agent: *\nDisallow: /private/\n"
KINDS = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
WINDOW_SECONDS = 5.0
ARRIVAL_SECONDS = 0.25
"""A request that begins as soon after a refusal may have been sent before that was read: two connections are open, and the
machine may be busy."""


@dataclass
class Host:
    """What was noted of one host."""

    begun: list[float] = field(default_factory=list)
    """When its requests began."""
    busy: int = 0
    peak: int = 0
    closed_from: float = 0.0
    closed_until: float = 0.0
    early: int = 0
    """Requests that came before the time that ``Retry-After`` had named, although the answer must have arrived."""
    forbidden: int = 0
    """Requests for what robots.txt forbids."""
    seen: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, float]:
        """Return the figures of its manners."""
        gaps = [later - earlier for earlier, later in zip(self.begun, self.begun[1:], strict=False)]
        most, first = 0, 0
        for place, at in enumerate(self.begun):
            while self.begun[first] <= at - WINDOW_SECONDS:
                first += 1
            most = max(most, place - first + 1)
        return {
            "requests": len(self.begun),
            "peak": self.peak,
            "smallest_gap": min(gaps, default=float("inf")),
            "most_in_window": most,
            "early": self.early,
            "forbidden": self.forbidden,
        }


class Server:
    """All hosts."""

    def __init__(self, web: Web) -> None:
        self.web = web
        self.by_address = {web.address(host): host for host in range(web.hosts + 1)}
        self.pages = [
            {f"/page/{page}" if page else "/": web.page(host, page).encode() for page in range(web.pages)}
            for host in range(web.hosts)
        ] + [{"/": web.hub_page().encode()}]
        self.hosts: list[Host] = []
        self.reset()

    def reset(self) -> None:
        self.hosts = [Host() for _ in range(self.web.hosts + 1)]

    def report(self) -> dict[str, float]:
        """Return the worst of each figure, of all hosts; the hub is one like others."""
        asked = [host.report() for host in self.hosts if host.begun]
        if not asked:
            return {}
        return {
            "hosts": len(asked),
            "requests": sum(one["requests"] for one in asked),
            "peak": max(one["peak"] for one in asked),
            "smallest_gap": min(one["smallest_gap"] for one in asked),
            "most_in_window": max(one["most_in_window"] for one in asked),
            "early": sum(one["early"] for one in asked),
            "forbidden": sum(one["forbidden"] for one in asked),
        }

    async def serve(self) -> None:
        """Listen until standard input ends."""
        loop = asyncio.get_running_loop()
        addresses = list(self.by_address)
        server = await loop.create_server(lambda: Visit(self), addresses, self.web.port, backlog=64)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print("ready", flush=True)
        async for line in reader:
            if line.strip() == b"reset":
                self.reset()
            print(json.dumps(self.report()), flush=True)
        server.close()

    async def answer(self, number: int, path: str) -> bytes:
        """Note a request, wait as long as the host takes, and return what it answers."""
        host, now = self.hosts[number], time.monotonic()
        host.begun.append(now)
        host.busy += 1
        host.peak = max(host.peak, host.busy)
        host.early += host.closed_from < now < host.closed_until
        host.forbidden += path.startswith("/private/")
        try:
            await asyncio.sleep(self.web.latency(number))
            return self._content(number, host, path)
        finally:
            host.busy -= 1

    def _content(self, number: int, host: Host, path: str) -> bytes:
        if path in self.pages[number]:
            return _response(200, self.pages[number][path], "text/html; charset=utf-8")
        if path == "/robots.txt":
            return _response(200, ROBOTS, "text/plain")
        file = self.web.files[number].get(path) if number < self.web.hosts else None
        if file is None:
            return _response(404, b"Not here.", "text/plain")
        host.seen[path] += 1
        return self._picture(host, path, file)

    def _picture(self, host: Host, path: str, file: File) -> bytes:
        is_first = host.seen[path] == 1
        if file.kind == "broken" or (file.trouble == "error" and is_first):
            return _response(500, b"Broken.", "text/plain")
        if file.trouble == "busy" and is_first:
            host.closed_from = time.monotonic() + ARRIVAL_SECONDS
            host.closed_until = time.monotonic() + RETRY_AFTER_SECONDS
            return _response(429, b"", "text/plain", f"Retry-After: {RETRY_AFTER_SECONDS}\r\n")
        if file.trouble == "moved":
            return _response(302, b"", "text/plain", f"Location: /moved/{file.name}\r\n")
        if file.kind == "fake":
            return _response(200, b"<!doctype html><p>You are not signed in.", "image/jpeg")
        body = (self.web.folder / file.name).read_bytes()
        return _response(200, body, KINDS[file.name.rpartition(".")[2]])


class Visit(asyncio.Protocol):
    """A connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._host = self._server.by_address[transport.get_extra_info("sockname")[0]]

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            path = head.split(b" ", 2)[1].decode("latin-1")
            task = asyncio.create_task(self._answer(path))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, path: str) -> None:
        answer = await self._server.answer(self._host, path)
        if not self._transport.is_closing():
            self._transport.write(answer)


def _response(status: int, body: bytes, kind: str, headers: str = "") -> bytes:
    phrase = HTTPStatus(status).phrase
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode("latin-1") + body


def main() -> None:
    folder, *numbers = sys.argv[1:]
    port, hosts, pages, pictures = map(int, numbers)
    web = Web(hosts=hosts, pages=pages, pictures=pictures, folder=Path(folder), port=port)
    asyncio.run(Server(web).serve())


if __name__ == "__main__":
    main()
