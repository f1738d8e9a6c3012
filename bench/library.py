"""Lists and searches of a library of a thousand, a hundred thousand and a million images."""

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from typing import Any

from bench.databases import postgres_server, temporary_database
from bench.instance import Instance, Service, free_port, temporary_instance
from bench.report import Figure, at_least, at_most, info, percentile, spread
from bench.setting import Setting, say
from bench.subject import ROOT
from bench.web_server import Rounds, load, uvicorn

NAME = "library"
APP = "bench.library_app.Library"

PAGE_MS, SEARCH_MS, GROWTH, QUERIES, SHARE = 50.0, 150.0, 1.3, 6, 0.35
PAGES = ("first page", "middle page", "last page")


def run(setting: Setting) -> list[Figure]:
    """Measure on SQLite and, where it answers, on PostgreSQL."""
    figures = _measure(setting, "SQLite", None)
    if (server := postgres_server()) is None:
        return [*figures, info(NAME, "PostgreSQL", "skipped: no server answers")]
    return figures + _measure(setting, "PostgreSQL", server)


def _measure(setting: Setting, database: str, server: str | None) -> list[Figure]:
    """Fill one instance after the other, ask for pages in a process of its own, and over HTTP where shares are judged."""
    figures: list[Figure] = []
    medians: dict[int, dict[str, float]] = {}
    for count in setting.pick((1_000, 100_000, 1_000_000), (1_000, 20_000)):
        if server is None:
            with temporary_instance(extra_app=APP) as instance:
                figures += _one_size(setting, database, instance, count, medians)
        else:
            with (
                temporary_database(server) as url,
                temporary_instance(database_url=url, extra_app=APP) as instance,
            ):
                figures += _one_size(setting, database, instance, count, medians)
    smallest, largest = min(medians), max(medians)
    for page in PAGES:
        growth = medians[largest][page] / medians[smallest][page]
        what = f"{database}: {page}, p50 at {largest:,} rows, times that at {smallest:,}"
        figures.append(at_most(NAME, what, growth, GROWTH))
    return figures


def _one_size(
    setting: Setting, database: str, instance: Instance, count: int, medians: dict[int, dict[str, float]]
) -> list[Figure]:
    album = json.loads(run_program(instance, "bench.library_rows", count).splitlines()[-1])["album"]
    say(f"{database}: {count:,} images inserted")
    measured = json.loads(run_program(instance, "bench.library_pages", count, setting.pick(60, 10)))
    medians[count] = {page: statistics.median(found["times"]) for page, found in measured.items()}
    figures = [
        _figure(f"{database}, {count:,} rows: {page}", page, found) for page, found in measured.items()
    ]
    most = max(found["queries"] for found in measured.values())
    figures.append(at_most(NAME, f"{database}, {count:,} rows: queries of a page, at most", most, QUERIES))
    if count <= 100_000:
        figures += _shares(setting, f"{database}, {count:,} rows", instance, album)
    return figures


def _figure(what: str, page: str, found: dict[str, Any]) -> Figure:
    goal = SEARCH_MS if page.startswith("search") else PAGE_MS
    p50, p95 = statistics.median(found["times"]), percentile(found["times"], 0.95)
    return at_most(NAME, f"{what} (p50 {p50:.1f} ms), p95", p95, goal, unit=" ms")


def _shares(setting: Setting, what: str, instance: Instance, album: str) -> list[Figure]:
    """Put load on the API and on bare views in turns, each on a server of its own."""
    pairs = {
        "/api/images": "/api/bench/images",
        f"/api/images?album={album}": f"/api/bench/albums/{album}",
        "/api/albums": "/api/bench/albums",
    }
    argv = uvicorn("imagehub.asgi:application")
    port, bare_port = free_port(), free_port()
    settings = instance.env.get("DJANGO_SETTINGS_MODULE", "imagehub.settings")
    instance.env["DJANGO_SETTINGS_MODULE"] = "bench.without_middleware"
    with instance.serving(argv(bare_port), bare_port, probe="/api/bench/images") as bare:
        instance.env["DJANGO_SETTINGS_MODULE"] = settings
        with instance.serving(argv(port), port) as shipped:
            shares, rounds = _rounds(setting, shipped, bare, pairs)
    figures = []
    for path in pairs:
        name = "an album of 500, its first 50" if "album=" in path else path
        median = statistics.median(shares[path])
        figures.append(at_least(NAME, f"{what}: {name}, share of a bare view's rate", median, SHARE))
        ours, floor = rounds[path]
        text = f"{spread(ours.rates, '.0f')}/s against {spread(floor.rates, '.0f')}/s"
        failures = ours.failures + floor.failures
        figures.append(info(NAME, f"  {name}", text + (f", {failures} FAILED" if failures else "")))
    return figures


def _rounds(
    setting: Setting, shipped: Service, bare: Service, pairs: dict[str, str]
) -> tuple[dict[str, list[float]], dict[str, tuple[Rounds, Rounds]]]:
    shares: dict[str, list[float]] = defaultdict(list)
    rounds: dict[str, tuple[Rounds, Rounds]] = defaultdict(lambda: (Rounds(), Rounds()))
    for turn in range(setting.pick(5, 2) + 1):
        for path, bare_path in pairs.items():
            ours, floor = rounds[path] if turn else (Rounds(), Rounds())  # the first turn only warms up
            load(shipped, path, ours, seconds=setting.pick(3, 2))
            load(bare, bare_path, floor, seconds=setting.pick(3, 2))
            if turn:
                shares[path].append(ours.rates[-1] / floor.rates[-1])
    return shares, rounds


def run_program(instance: Instance, module: str, *arguments: int) -> str:
    argv = [sys.executable, "-m", module, *map(str, arguments)]
    env = instance.env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr[-2000:]}")
    return done.stdout
