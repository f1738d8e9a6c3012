"""A client with one keep-alive connection, as a script against the API would have."""

import http.client
import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

IDLE_SECONDS = 3.0
"""After this long without a request a new connection is opened; the server closes idle ones after five seconds."""


POLL_SECONDS = 0.5
"""Seldom, because each question costs the server time; when a job ended stands in its row."""


class RequestRefused(Exception):
    """The server answered with an error."""


class Client:
    """One connection to an instance, with a token."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._last_used = time.monotonic()
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def fetch(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Make one request and return the status and the content, whatever they are."""
        data = None if body is None else json.dumps(body)
        if time.monotonic() - self._last_used > IDLE_SECONDS:
            self._connection.close()  # the next request opens it again
        self._connection.request(method, path, body=data, headers=self._headers)
        response = self._connection.getresponse()
        content = response.read()
        self._last_used = time.monotonic()
        return response.status, content

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make one request and return the JSON of its answer.

        Raises:
            RequestRefused: the answer is an error.
        """
        status, content = self.fetch(method, path, body)
        if status >= 400:
            raise RequestRefused(f"{method} {path} answered {status}: {content[:500]!r}")
        return json.loads(content) if content else None

    def submit(self, bodies: Sequence[dict[str, Any]]) -> list[str]:
        """Ask for pictures, one request each; return the ids of the jobs."""
        return [self.call("POST", "/api/generate", body)["id"] for body in bodies]

    def wait_for(self, jobs: Sequence[str], *, seconds: float = 600.0) -> list[dict[str, Any]]:
        """Wait until jobs of one owner, in the order they were submitted, have ended well; return them.

        The queue keeps their order, so only the last one is asked about.

        Raises:
            RequestRefused: one ended otherwise, or not in time.
        """
        deadline = time.monotonic() + seconds
        while (last := self.call("GET", f"/api/jobs/{jobs[-1]}"))["finished_at"] is None:
            if time.monotonic() > deadline:
                raise RequestRefused(f"The last job is {last['status']} after {seconds:.0f} s.")
            time.sleep(POLL_SECONDS)
        ended = [self.call("GET", f"/api/jobs/{pk}") for pk in jobs]
        for job in ended:
            if job["status"] != "completed":
                raise RequestRefused(f"A job is {job['status']}: {job['error']}")
        return ended


def ended_at(jobs: Sequence[dict[str, Any]]) -> float:
    """Return when the last of some jobs ended, by the database's clock (which is this machine's)."""
    return max(datetime.fromisoformat(job["finished_at"]).timestamp() for job in jobs)
