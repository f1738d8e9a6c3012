"""How soon work that was lost with its cluster, or with its whole machine, is queued again and under way again."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bench.client import Client
from bench.databases import postgres_server, temporary_database
from bench.instance import Instance, Service, temporary_instance
from bench.machine import find_process, process_tree
from bench.report import Figure, at_most, info, spread
from bench.setting import Setting, say

NAME = "restart"
GOAL_SECONDS = 60.0
PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.1
LONG = {"prompt": "a red heart on a white background", "steps": 150, "width": 512, "height": 512, "n": 8}
"""Nobody is done with that before he is killed."""


def run(setting: Setting) -> list[Figure]:
    """Kill on SQLite and, where it answers, on PostgreSQL."""
    rounds = setting.pick(3, 1)
    with temporary_instance() as instance:
        figures = _measure(instance, rounds, "SQLite")
    if (server := postgres_server()) is None:
        return [*figures, info(NAME, "PostgreSQL", "skipped: no server answers")]
    with temporary_database(server) as url, temporary_instance(database_url=url) as instance:
        return figures + _measure(instance, rounds, "PostgreSQL")


def _measure(instance: Instance, rounds: int, database: str) -> list[Figure]:
    clusters: list[tuple[float, float]] = []
    machines: list[tuple[float, float]] = []
    for number in range(rounds):
        with instance.supervised() as service, service.client() as client:
            job = _begin(client)
            _kill_cluster(service)
            clusters.append(_recover(client, job, time.monotonic()))
            _cancel(client, job)
            job = _begin(client)
            _kill_everything(service)
        killed_at = time.monotonic()
        with instance.supervised() as service, service.client() as client:
            machines.append(_recover(client, job, killed_at))
            _cancel(client, job)
        say(
            f"{database}, round {number + 1}: cluster {clusters[-1][0]:.0f} s, machine {machines[-1][0]:.0f} s"
        )
    return [
        *_figures(f"{database}: cluster killed, supervised", clusters),
        *_figures(f"{database}: everything killed, and started at once", machines),
    ]


def _figures(what: str, times: list[tuple[float, float]]) -> list[Figure]:
    queued, running = zip(*times, strict=True)
    return [
        at_most(NAME, f"{what}, its job is queued again, slowest", max(queued), GOAL_SECONDS, unit=" s"),
        info(NAME, "  queued again; under way again", f"{spread(queued)}; {spread(running)} s"),
    ]


def _begin(client: Client) -> str:
    """Ask for long work, and return its id when it is under way."""
    job = str(client.submit([LONG])[0])
    _wait(client, job, lambda row: row["status"] == "running" and row["step"] > 0)
    return job


def _recover(client: Client, job: str, killed_at: float) -> tuple[float, float]:
    """Return after how many seconds the job was queued again, and under way again."""
    _wait(client, job, lambda row: row["status"] == "queued" or row["attempt"] > 1)
    queued = time.monotonic() - killed_at
    _wait(client, job, lambda row: row["status"] == "running" and row["attempt"] > 1)
    return queued, time.monotonic() - killed_at


def _cancel(client: Client, job: str) -> None:
    client.fetch("DELETE", f"/api/jobs/{job}")
    _wait(client, job, lambda row: row["finished_at"] is not None)


def _wait(client: Client, job: str, is_there: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_there(row := client.call("GET", f"/api/jobs/{job}")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"The job is {row['status']} after {PATIENCE_SECONDS:.0f} s.")
        time.sleep(POLL_SECONDS)


def _kill_cluster(service: Service) -> None:
    """End the main process of the cluster that makes pictures; the kernel takes the rest along."""
    os.kill(find_process(service.pid, "qcluster generation main"), signal.SIGKILL)


def _kill_everything(service: Service) -> None:
    """End every process at once, as a power cut would."""
    for pid in sorted(process_tree(service.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
