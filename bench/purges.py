"""How quickly old things are purged, and in how much memory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from bench.databases import postgres_server, temporary_database
from bench.instance import DidNotStart, Instance, temporary_instance
from bench.report import Figure, at_least, at_most, info
from bench.setting import Setting, say
from bench.subject import ROOT

NAME = "purges"
ROWS = 100_000
GOAL_RATE = 2000.0
GOAL_MIB = 150.0
KINDS = {"generation": "jobs", "trash": "images with files", "scraping": "addresses of pictures"}


def run(setting: Setting) -> list[Figure]:
    """Purge so many old rows of each kind on each database, in a process of its own that does nothing else."""
    rows = setting.pick(ROWS, 2000)
    figures: list[Figure] = []
    for database, url in _databases():
        for kind, things in KINDS.items():
            with ExitStack() as stack:
                address = stack.enter_context(temporary_database(url)) if url else ""
                instance = stack.enter_context(temporary_instance(database_url=address))
                _program(instance, "fill", kind, str(rows))
                found = _program(instance, "purge", kind)
            rate = found["things"] / found["seconds"]
            say(f"{database}, {kind}: {found}")
            figures += [
                at_least(NAME, f"{found['things']} {things}, {database}", rate, GOAL_RATE, unit=" rows/s"),
                info(NAME, "  its processor time", f"{found['cpu_seconds']} s"),
                at_most(NAME, "  peak memory of its process", found["peak_mib"], GOAL_MIB, unit=" MiB"),
                info(NAME, "  of which it had before", f"{found['before_mib']:.0f} MiB"),
            ]
            if kind == "trash" and not url:
                figures.append(_beside_files_alone(rows, found["seconds"]))
    return figures


def _beside_files_alone(rows: int, seconds: float) -> Figure:
    """Delete the files of as many images with nothing else: how much of a purge the file system takes."""
    with temporary_instance() as instance:
        _program(instance, "fill", "trash", str(rows))
        alone = _program(instance, "unlink")
    say(f"the files alone: {alone}")
    told = f"{alone['seconds'] / seconds:.2f} of it: {alone['files']} in {alone['seconds']} s"
    return info(NAME, "  its files alone", told)


def _databases() -> Iterator[tuple[str, str]]:
    yield "SQLite", ""
    if server := postgres_server():
        yield "PostgreSQL", server


def _program(instance: Instance, *arguments: str) -> dict[str, Any]:
    """Run a step of ``bench.purge_rows`` in an instance, and return what it tells."""
    argv = [sys.executable, "-m", "bench.purge_rows", *arguments]
    env = instance.env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DidNotStart(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
