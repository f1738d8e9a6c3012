"""How long the engine idles between two queued jobs, and what the time goes into."""

import json
import statistics
from itertools import pairwise
from pathlib import Path

from bench.databases import postgres_server, temporary_database
from bench.engine_tap import FOLDER
from bench.instance import Instance, temporary_instance
from bench.report import Figure, at_most, info, percentile
from bench.setting import Setting, say
from bench.subject import pictures
from bench.throughput import make_through_everything

NAME = "gap"
GOAL_MS = 50.0
TAP = "bench.engine_tap.EngineTap"

PATH = (
    ("engine save", "the engine has the pixels"),
    ("heard save", "pipe to the worker"),
    ("job ends", "worker: what is left of the job put aside"),
    ("job begins", "worker: next job claimed"),
    ("send begins", "worker: staging made, pictures counted, request built"),
    ("engine encode", "pipe to the engine, request parsed, adapters switched, scheduler made"),
)
"""What happens between two pictures, in order: each mark, and what the time since the mark before it is."""


def run(setting: Setting) -> list[Figure]:
    """Look on SQLite and, where it answers, on PostgreSQL."""
    with temporary_instance(extra_app=TAP) as instance:
        figures = _measure(setting, instance, "SQLite")
    if (server := postgres_server()) is None:
        return [*figures, info(NAME, "PostgreSQL", "skipped: no server answers")]
    with (
        temporary_database(server) as url,
        temporary_instance(database_url=url, extra_app=TAP) as instance,
    ):
        return figures + _measure(setting, instance, "PostgreSQL")


def _measure(setting: Setting, instance: Instance, database: str) -> list[Figure]:
    """Queue jobs at once, so that one always waits, and look at the marks between their pictures."""
    count = setting.pick(100, 20)
    subject = instance.add_subject(setting.scratch)
    say(f"{database}: {count} jobs in the queue, with {subject.description}")
    with instance.supervised() as service, service.client() as client:
        make_through_everything(client, pictures(1, first_seed=1), subject)
        make_through_everything(client, pictures(count, first_seed=100), subject)
    marks = read_marks(instance.folder / FOLDER)
    gaps = [between for between in between_pictures(marks) if len(between) == len(PATH)][1:]
    idle = [1000 * (between["engine encode"] - between["engine save"]) for between in gaps]
    what = f"{database}: engine idle between two queued jobs"
    figures = [
        at_most(NAME, f"{what}, p95", percentile(idle, 0.95), GOAL_MS, unit=" ms"),
        info(NAME, f"{what}, p50; p95; largest of {len(idle)}", f"{_times(idle)}; {max(idle):.0f} ms"),
    ]
    for (before, _), (mark, part) in pairwise(PATH):
        times = [1000 * (between[mark] - between[before]) for between in gaps]
        figures.append(info(NAME, f"  of it: {part}, p50; p95", f"{_times(times)} ms"))
    return [
        *figures,
        info(
            NAME,
            f"{database}: end of denoising to begin of the next, p50; p95",
            f"{_times(denoise_gaps(marks)[1:])} ms",
        ),
    ]


def _times(milliseconds: list[float]) -> str:
    return f"{statistics.median(milliseconds):.1f}; {percentile(milliseconds, 0.95):.1f}"


def read_marks(folder: Path) -> list[tuple[float, str]]:
    """Return the marks of the worker that made the pictures, in the order it wrote them down."""
    files = [path.read_text().splitlines() for path in folder.glob("*.jsonl")]
    return [tuple(json.loads(line)) for line in max(files, key=len)]


def between_pictures(marks: list[tuple[float, str]]) -> list[dict[str, float]]:
    """Return, for each two pictures that follow each other, when the marks between them were passed."""
    names = {name for name, _ in PATH}
    found: list[dict[str, float]] = []
    current: dict[str, float] | None = None
    for at, what in marks:
        if what == "engine save":
            current = {}
        if current is not None and what in names:
            current[what] = at
            if what == "engine encode":
                found.append(current)
                current = None
    return found


def denoise_gaps(marks: list[tuple[float, str]]) -> list[float]:
    """Return the milliseconds from each end of denoising to the next begin."""
    gaps = []
    ended: float | None = None
    for at, what in marks:
        if what == "engine decode":
            ended = at
        elif what == "engine denoise" and ended is not None:
            gaps.append(1000 * (at - ended))
            ended = None
    return gaps
