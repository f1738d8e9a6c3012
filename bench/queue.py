"""A queue of 10,000 jobs over 200,000 finished ones: what a claim costs, what a poll costs, and what listeners cost."""

import json
import time

from bench import machine
from bench.client import Client
from bench.databases import postgres_server, temporary_database
from bench.instance import Instance, free_port, temporary_instance
from bench.library import run_program
from bench.report import Figure, at_most, info, percentile
from bench.setting import Setting, say
from bench.web_server import LISTENERS, listeners, uvicorn

NAME = "queue"
POLL_MS = 20.0
LISTEN_SECONDS = 10


def run(setting: Setting) -> list[Figure]:
    """Measure on SQLite and, where it answers, on PostgreSQL."""
    with temporary_instance() as instance:
        figures = _measure(setting, instance, "SQLite")
    if (server := postgres_server()) is None:
        return [*figures, info(NAME, "PostgreSQL", "skipped: no server answers")]
    with temporary_database(server) as url, temporary_instance(database_url=url) as instance:
        return figures + _measure(setting, instance, "PostgreSQL")


def _measure(setting: Setting, instance: Instance, database: str) -> list[Figure]:
    finished, queued, rounds = setting.pick(200_000, 5_000), setting.pick(10_000, 500), setting.pick(50, 5)
    found = json.loads(run_program(instance, "bench.queue_rows", finished, queued, rounds))
    job = found.pop("job")
    say(f"{database}: {finished:,} finished and {queued:,} queued")
    figures = [
        info(NAME, f"{database}: {what}, p50, p95", f"{_ms(times, 0.5):.1f}, {_ms(times, 0.95):.1f} ms")
        for what, times in found.items()
    ]
    port = free_port()
    with instance.serving(uvicorn("imagehub.asgi:application")(port), port) as service:
        with service.client() as client:
            _poll(client, job)
            cpu = machine.cpu_seconds(service.pid)
            polls = [_poll(client, job) for _ in range(rounds)]
            cpu = 1000 * (machine.cpu_seconds(service.pid) - cpu) / rounds
        figures += [
            at_most(NAME, f"{database}: GET of the last job, p50", _ms(polls, 0.5), POLL_MS, unit=" ms"),
            info(NAME, f"{database}:   processor time of one", f"{cpu:.1f} ms"),
        ]
        path = f"/api/jobs/{job}/events"
        before = machine.tree_pss_mib(service.pid)
        with listeners(service, LISTENERS, path=path) as begun:
            time.sleep(1)
            memory = machine.tree_pss_mib(service.pid) - before
            cpu = machine.cpu_seconds(service.pid)
            time.sleep(LISTEN_SECONDS)
            cpu = machine.cpu_seconds(service.pid) - cpu
        what = f"{database}: {LISTENERS} listeners of one waiting job, share of a core; memory"
        figures.append(
            info(
                NAME,
                what,
                f"{100 * cpu / LISTEN_SECONDS:.1f} %; {memory:.0f} MiB more ({begun} streams began)",
            )
        )
    return figures


def _poll(client: Client, job: str) -> float:
    started = time.perf_counter()
    client.call("GET", f"/api/jobs/{job}")
    return time.perf_counter() - started


def _ms(seconds: list[float], share: float) -> float:
    return 1000 * percentile(seconds, share)
