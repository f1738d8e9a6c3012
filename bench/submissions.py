"""How long a script takes to queue 100 pictures, one request each, on SQLite."""

import sys
import time

from bench.client import Client
from bench.instance import Service, free_port, temporary_instance
from bench.report import Figure, at_most, info, percentile
from bench.setting import Setting, say
from bench.subject import Subject, pictures
from bench.throughput import make_through_everything

NAME = "submissions"
GOAL_SECONDS = 5.0
COUNT = 100


def run(setting: Setting) -> list[Figure]:
    """Submit with nothing else running, and again while a queued job is being made."""
    with temporary_instance() as instance:
        subject = instance.add_subject(setting.scratch)
        port = free_port()
        web = [sys.executable, "-m", "uvicorn", "imagehub.asgi:application", "--port", str(port)]
        with instance.serving([*web, "--no-access-log", "--log-level", "warning"], port) as service:
            alone = _submit(service, subject)
        say(f"web alone: {sum(alone):.2f} s")
    with temporary_instance() as instance:
        subject = instance.add_subject(setting.scratch)
        with instance.supervised() as service:
            with service.client() as client:
                make_through_everything(client, pictures(1, first_seed=1), subject)
            working = _submit(service, subject)
        say(f"while generating: {sum(working):.2f} s")
    return [
        at_most(NAME, "100 single submissions while the engine works", sum(working), GOAL_SECONDS, unit=" s"),
        at_most(NAME, "100 single submissions, web server alone", sum(alone), GOAL_SECONDS, unit=" s"),
        info(NAME, "one submission while the engine works, p50; p95", _times(working)),
        info(NAME, "one submission, web server alone, p50; p95", _times(alone)),
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
    return f"{1000 * percentile(seconds, 0.5):.1f}; {1000 * percentile(seconds, 0.95):.1f} ms"
