"""The first page of the admin over a million images and 100,000 jobs."""

import json
import statistics

from bench.databases import postgres_server, temporary_database
from bench.instance import Instance, temporary_instance
from bench.library import run_program
from bench.report import Figure, at_most, info, percentile
from bench.setting import Setting, say

NAME = "cockpit"
PAGE_MS = 200.0


def run(setting: Setting) -> list[Figure]:
    """Measure on SQLite and, where it answers, on PostgreSQL."""
    with temporary_instance() as instance:
        figures = _measure(setting, instance, "SQLite")
    if (server := postgres_server()) is None:
        return [*figures, info(NAME, "PostgreSQL", "skipped: no server answers")]
    with temporary_database(server) as url, temporary_instance(database_url=url) as instance:
        return figures + _measure(setting, instance, "PostgreSQL")


def _measure(setting: Setting, instance: Instance, database: str) -> list[Figure]:
    images, jobs = setting.pick(1_000_000, 10_000), setting.pick(100_000, 2_000)
    run_program(instance, "bench.library_rows", images)
    say(f"{database}: {images:,} images inserted")
    found = json.loads(run_program(instance, "bench.cockpit_pages", jobs, setting.pick(40, 5)))
    figures = []
    for page, one in found.items():
        p50, p95 = statistics.median(one["times"]), percentile(one["times"], 0.95)
        what = f"{database}: {page}, {one['queries']} queries (p50 {p50:.0f} ms), p95"
        figures.append(at_most(NAME, what, p95, PAGE_MS, unit=" ms"))
        figures.append(
            info(
                NAME, "  processor time of one, without the server of the database", f"{one['cpu_ms']:.0f} ms"
            )
        )
        figures.append(info(NAME, "  its slowest query", f"{one['slowest_ms']:.1f} ms: {one['slowest']}"))
    return figures
