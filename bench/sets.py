"""How long it takes to submit a set of 10,000 pictures, over HTTP and by one request."""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench.databases import postgres_server, temporary_database
from bench.instance import Instance, free_port, temporary_instance
from bench.report import Figure, at_most, info, spread
from bench.setting import Setting, say
from bench.web_server import uvicorn

NAME = "sets"
GOAL_SECONDS = 3.0
ROWS = 10_000


def run(setting: Setting) -> list[Figure]:
    """Submit a large set on each database, into a queue that is empty, and follow it once."""
    rows = setting.pick(ROWS, 500)
    figures: list[Figure] = []
    for database, url in _databases():
        with ExitStack() as stack:
            url = stack.enter_context(temporary_database(url)) if url else ""
            instance = stack.enter_context(temporary_instance(database_url=url))
            submitting, looking = _measure(instance, rows, rounds=setting.pick(3, 1))
        say(f"{database}: {spread(submitting)} s")
        figures += [
            at_most(
                NAME,
                f"a set of {rows} submitted, {database}",
                statistics.median(submitting),
                GOAL_SECONDS,
                unit=" s",
            ),
            info(NAME, "  GET of the set run, its first 1000 pictures included", f"{spread(looking)} s"),
        ]
    return figures


def _databases() -> Iterator[tuple[str, str]]:
    yield "SQLite", ""
    if server := postgres_server():
        yield "PostgreSQL", server


def _measure(instance: Instance, rows: int, *, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds that each request to submit the set, and each to look at the run, took."""
    port = free_port()
    submitting, looking = [], []
    with (
        instance.serving(uvicorn("imagehub.asgi:application")(port), port) as service,
        service.client() as client,
    ):
        deck = client.call(
            "POST",
            "/api/albums",
            {
                "name": "large",
                "is_set_template": True,
                "prompt_template": "{what}",
                "set_rows": [{"what": f"a red heart number {number}"} for number in range(rows)],
            },
        )
        for _ in range(rounds):
            started_at = time.perf_counter()
            run = client.call("POST", f"/api/albums/{deck['id']}/generate", {"theme": "linocut"})
            submitting.append(time.perf_counter() - started_at)
            started_at = time.perf_counter()
            client.call("GET", f"/api/set-runs/{run['id']}")
            looking.append(time.perf_counter() - started_at)
            client.call("DELETE", f"/api/set-runs/{run['id']}")  # the queue holds as many as one set has
    return submitting, looking
