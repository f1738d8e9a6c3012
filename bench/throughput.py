"""Pictures a second through the whole path, as a share of a bare diffusers loop."""

import hashlib
import io
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image as Picture

from bench import machine
from bench.client import Client, ended_at
from bench.databases import postgres_server, temporary_database
from bench.instance import Instance, Service, temporary_instance
from bench.report import Figure, at_least, info, spread
from bench.setting import Setting, say
from bench.subject import ROOT, Subject, pictures
from imagehub.jobs import parent_death

NAME = "throughput"
GOAL = 0.85


class BareLoop:
    """The program ``bench.bare_loop``: makes pictures when asked to, and waits in between."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._read()

    def make(self, wanted: list[dict[str, Any]], folder: str) -> dict[str, Any]:
        """Make some pictures; return the seconds, the processor time and a digest of each one's pixels."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"pictures": wanted, "folder": folder}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())


@contextmanager
def bare_loop(subject: Subject) -> Iterator[BareLoop]:
    """Run the bare loop until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.bare_loop", str(subject.folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=parent_death.before_exec(),
    )
    try:
        yield BareLoop(process)
    finally:
        process.kill()
        process.communicate()


def make_through_everything(
    client: Client, wanted: list[dict[str, Any]], subject: Subject
) -> tuple[float, list[dict[str, Any]]]:
    """Make pictures through the API; return the seconds from the first request to the last row, and the jobs."""
    started_at = time.time()
    ids = client.submit([picture | {"base_model": subject.name} for picture in wanted])
    jobs = client.wait_for(ids)
    return ended_at(jobs) - started_at, jobs


def run(setting: Setting) -> list[Figure]:
    """Let the bare loop and ImageHub take turns, on SQLite and, where it answers, on PostgreSQL."""
    with temporary_instance() as instance:
        figures = _compare(setting, instance, "SQLite")
    if (server := postgres_server()) is None:
        return [*figures, info(NAME, "PostgreSQL", "skipped: no server answers")]
    with temporary_database(server) as url, temporary_instance(database_url=url) as instance:
        return figures + _compare(setting, instance, "PostgreSQL")


def _compare(setting: Setting, instance: Instance, database: str) -> list[Figure]:
    rounds, count = setting.pick(5, 2), setting.pick(24, 8)
    subject = instance.add_subject(setting.scratch)
    say(f"{database}: {rounds} times {count} pictures each way, with {subject.description}")
    ratios: list[float] = []
    bare_rates: list[float] = []
    our_rates: list[float] = []
    bare_cpu = 0.0
    our_cpu: Counter[str] = Counter()
    with instance.supervised() as service, service.client() as client, bare_loop(subject) as bare:
        warm_up = pictures(2, first_seed=1)
        bare.make(warm_up, str(instance.folder / "bare"))
        make_through_everything(client, warm_up, subject)
        are_equal = True
        for turn in range(rounds):
            wanted = pictures(count, first_seed=1000 * (turn + 1))
            made = bare.make(wanted, str(instance.folder / "bare"))
            used_before = _used(service)
            seconds, jobs = make_through_everything(client, wanted, subject)
            our_cpu.update({part: used - used_before[part] for part, used in _used(service).items()})
            bare_cpu += made["cpu"]
            if turn == 0:
                are_equal = _digests(client, jobs) == made["digests"]
            bare_rates.append(count / made["seconds"])
            our_rates.append(count / seconds)
            ratios.append(our_rates[-1] / bare_rates[-1])
            say(
                f"round {turn + 1}: bare {bare_rates[-1]:.2f}/s, ours {our_rates[-1]:.2f}/s, {ratios[-1]:.3f}"
            )
    total = rounds * count
    return [
        at_least(
            NAME, f"{database}: share of a bare loop's pictures/s, median", statistics.median(ratios), GOAL
        ),
        info(NAME, f"{database}: that share in {rounds} rounds", spread(ratios)),
        info(NAME, f"{database}: pictures/s, bare", spread(bare_rates)),
        info(NAME, f"{database}: pictures/s, ours", spread(our_rates)),
        info(NAME, f"{database}: processor ms a picture, bare", f"{1000 * bare_cpu / total:.0f}"),
        info(
            NAME,
            f"{database}: processor ms a picture, ours",
            ", ".join(f"{part} {1000 * used / total:.0f}" for part, used in our_cpu.items()),
        ),
        info(NAME, f"{database}: the same seeds give the same pixels", "yes" if are_equal else "NO"),
    ]


def _used(service: Service) -> dict[str, float]:
    """Return the seconds of processor time that the parts of an instance have used so far."""
    used = {
        "engine": machine.cpu_seconds(machine.find_process(service.pid, "generation.engine")),
        "web": machine.cpu_seconds(machine.find_process(service.pid, "uvicorn")),
    }
    return used | {"workers and the rest": machine.cpu_seconds(service.pid) - sum(used.values())}


def _digests(client: Client, jobs: list[dict[str, Any]]) -> list[str]:
    """Return a digest of the pixels of each job's picture, as it is served."""
    found = []
    for job in jobs:
        _, content = client.fetch("GET", job["images"][0]["file_url"])
        with Picture.open(io.BytesIO(content)) as picture:
            found.append(hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest())
    return found
