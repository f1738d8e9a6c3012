"""What stands before every view: the time that middleware, token and rate limit add to one that does nothing."""

import os
import statistics
import time
from collections import defaultdict
from pathlib import Path

import redis
import yaml

from bench.client import Client
from bench.databases import postgres_server, temporary_database
from bench.instance import Instance, free_port, temporary_instance
from bench.report import Figure, at_most, info, percentile, spread
from bench.setting import Setting, say
from bench.web_server import uvicorn

NAME = "request_overhead"
GOAL_MS = 3.0
USUAL_REDIS = "redis://127.0.0.1:6379/0"
WARM_UP = 100

BARE = "nothing"
PATHS = {
    "middleware": "/api/bench/open",
    "middleware, token": "/api/bench/signed-in",
    "middleware, token, rate limit": "/api/bench/limited",
}


def run(setting: Setting) -> list[Figure]:
    """Ask two servers, with and without all that, in turns, over one connection each."""
    database, cache = postgres_server(), redis_server()
    if database is None or cache is None:
        return [info(NAME, "PostgreSQL and Redis", "skipped: one of them does not answer")]
    with (
        temporary_database(database) as url,
        temporary_instance(database_url=url, extra_app="bench.trivial.Trivial") as instance,
    ):
        instance.env["REDIS_URL"] = cache
        _never_reach_the_limit(Path(instance.env["IMAGEHUB_CONFIG"]))
        return _compare(setting, instance)


def redis_server() -> str | None:
    """Return the address of a Redis server: ``REDIS_URL``, or the usual local one; None if it is silent."""
    url = os.environ.get("REDIS_URL") or USUAL_REDIS
    try:
        redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3).ping()
    except redis.RedisError:
        return None
    return url


def _never_reach_the_limit(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    content["rate_limits"]["labeling"] = {"limit": 1_000_000_000, "window_seconds": 3600}
    path.write_text(yaml.safe_dump(content))


def _compare(setting: Setting, instance: Instance) -> list[Figure]:
    rounds, count = setting.pick(5, 1), setting.pick(400, 100)
    argv = uvicorn("imagehub.asgi:application")
    bare_port, port = free_port(), free_port()
    settings = instance.env.get("DJANGO_SETTINGS_MODULE", "imagehub.settings")
    instance.env["DJANGO_SETTINGS_MODULE"] = "bench.without_middleware"
    with instance.serving(argv(bare_port), bare_port, probe="/api/bench/open") as bare:
        instance.env["DJANGO_SETTINGS_MODULE"] = settings
        with (
            instance.serving(argv(port), port) as shipped,
            bare.client() as bare_client,
            shipped.client() as client,
        ):
            _ask(bare_client, client, WARM_UP)
            medians = defaultdict(list)
            for _ in range(rounds):
                for what, times in _ask(bare_client, client, count).items():
                    medians[what].append(1000 * percentile(times, 0.5))
    say(f"{rounds} rounds of {count} requests to each view done")
    added = {
        what: [one - reference for one, reference in zip(medians[what], medians[BARE], strict=True)]
        for what in PATHS
    }
    *steps, everything = PATHS
    return [
        at_most(NAME, f"{everything} add, p50", statistics.median(added[everything]), GOAL_MS, unit=" ms"),
        *(info(NAME, f"  {what} add, p50", f"{spread(added[what])} ms") for what in [*steps, everything]),
        info(NAME, "  the view with nothing before it, p50", f"{spread(medians[BARE])} ms"),
    ]


def _ask(bare: Client, shipped: Client, count: int) -> dict[str, list[float]]:
    """Ask the two servers in turns, so that each request finds its server as cold as any other."""
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(count):
        for what, path in PATHS.items():
            times[BARE].append(_timed(bare, PATHS["middleware"]))
            times[what].append(_timed(shipped, path))
    return times


def _timed(client: Client, path: str) -> float:
    started_at = time.perf_counter()
    client.call("GET", path)
    return time.perf_counter() - started_at
