"""How long a script takes to queue 100 pictures, one request each, on SQLite."""

import statistics
import time

from bench import machine
from bench.client import Client
from bench.instance import Service, free_port, temporary_instance
from bench.report import Figure, at_most, info, percentile, spread
from bench.setting import Setting, say
from bench.subject import Subject, pictures
from bench.throughput import make_through_everything
from bench.web_server import uvicorn

NAME = "submissions"
GOAL_SECONDS = 5.0
COUNT = 100


def run(setting: Setting) -> list[Figure]:
    """Submit with nothing else running, and again while a queued job is being made."""
    rounds = setting.pick(3, 1)
    alone: list[list[float]] = []
    working: list[list[float]] = []
    cpu: list[float] = []
    for _ in range(rounds):
        with temporary_instance() as instance:
            subject = instance.add_subject(setting.scratch)
            port = free_port()
            with instance.serving(uvicorn("imagehub.asgi:application")(port), port) as service:
                cpu_before = machine.cpu_seconds(service.pid)
                alone.append(_submit(service, subject))
                cpu.append(1000 * (machine.cpu_seconds(service.pid) - cpu_before) / COUNT)
            say(f"web alone: {sum(alone[-1]):.2f} s, {cpu[-1]:.1f} ms of processor each")
        with temporary_instance() as instance:
            subject = instance.add_subject(setting.scratch)
            with instance.supervised() as service:
                with service.client() as client:
                    make_through_everything(client, pictures(1, first_seed=1), subject)
                working.append(_submit(service, subject))
            say(f"while generating: {sum(working[-1]):.2f} s")
    return [
        *_figures("while the engine works", working),
        *_figures("web server alone", alone),
        info(NAME, "processor ms of the web server for one, first included", spread(cpu)),
    ]


def _figures(how: str, rounds: list[list[float]]) -> list[Figure]:
    totals = [sum(times) for times in rounds]
    every = [seconds for times in rounds for seconds in times]
    return [
        at_most(
            NAME, f"100 submissions, {how}, median round", statistics.median(totals), GOAL_SECONDS, unit=" s"
        ),
        info(NAME, "  rounds; one submission p50, p95", f"{spread(totals)} s; {_times(every)}"),
    ]


def _submit(service: Service, subject: Subject) -> list[float]:
    """Submit all over one connection; return the seconds of each request."""
    with service.client() as client:
        client.call("GET", "/api/jobs?limit=1")
        return [
            _timed(client, picture | {"base_model": subject.name})
            for picture in pictures(COUNT, first_seed=100)
        ]


def _timed(client: Client, body: dict[str, object]) -> float:
    started_at = time.perf_counter()
    client.call("POST", "/api/generate", body)
    return time.perf_counter() - started_at


def _times(seconds: list[float]) -> str:
    return f"{1000 * percentile(seconds, 0.5):.1f}, {1000 * percentile(seconds, 0.95):.1f} ms"
