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
from dataclasses import dataclass, field
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
GOAL = 0.90


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


@dataclass
class Tally:
    """What the rounds have shown so far."""

    bare_rates: list[float] = field(default_factory=list)
    our_rates: list[float] = field(default_factory=list)
    bare_cpu: float = 0.0
    our_cpu: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    are_equal: bool = True

    @property
    def ratios(self) -> list[float]:
        return [ours / bare for ours, bare in zip(self.our_rates, self.bare_rates, strict=True)]


def _compare(setting: Setting, instance: Instance, database: str) -> list[Figure]:
    rounds, count = setting.pick(6, 2), setting.pick(24, 8)
    subject = instance.add_subject(setting.scratch)
    say(f"{database}: {rounds} times {count} pictures each way, with {subject.description}")
    tally = Tally()
    with instance.supervised() as service, service.client() as client, bare_loop(subject) as bare:
        warm_up = pictures(2, first_seed=1)
        bare.make(warm_up, str(instance.folder / "bare"))
        make_through_everything(client, warm_up, subject)
        for turn in range(rounds):
            _one_round(
                pictures(count, first_seed=1000 * (turn + 1)), tally, instance, service, client, bare, subject
            )
    return _figures(database, tally)


def _one_round(
    wanted: list[dict[str, Any]],
    tally: Tally,
    instance: Instance,
    service: Service,
    client: Client,
    bare: BareLoop,
    subject: Subject,
) -> None:
    """Make the same pictures both ways: half of the bare ones before ours and half after, so that drift cancels out."""
    half = len(wanted) // 2
    folder = str(instance.folder / "bare")
    start = machine.Moment()
    first = bare.make(wanted[:half], folder)
    used_before, middle = _used(service), machine.Moment()
    seconds, jobs = make_through_everything(client, wanted, subject)
    used = {part: total - used_before[part] for part, total in _used(service).items()}
    after = machine.Moment()
    second = bare.make(wanted[half:], folder)
    end = machine.Moment()
    bare_cpu = first["cpu"] + second["cpu"]
    bare_seconds = first["seconds"] + second["seconds"]
    if not tally.pictures:
        tally.are_equal = _digests(client, jobs) == first["digests"] + second["digests"]
    tally.pictures += len(wanted)
    tally.bare_cpu += bare_cpu
    tally.our_cpu.update(used)
    tally.bare_rates.append(len(wanted) / bare_seconds)
    tally.our_rates.append(len(wanted) / seconds)
    others_bare = (middle.busy - start.busy + end.busy - after.busy - bare_cpu) / bare_seconds
    others_ours = (after.busy - middle.busy - sum(used.values())) / (after.at - middle.at)
    say(
        f"bare {tally.bare_rates[-1]:.2f}/s, ours {tally.our_rates[-1]:.2f}/s, share {tally.ratios[-1]:.3f} "
        f"(other programs kept {others_bare:.2f} and {others_ours:.2f} cores busy)"
    )


def _figures(database: str, tally: Tally) -> list[Figure]:
    made = tally.pictures
    return [
        at_least(
            NAME,
            f"{database}: share of a bare loop's pictures/s, median",
            statistics.median(tally.ratios),
            GOAL,
        ),
        info(NAME, f"{database}: that share in {len(tally.ratios)} rounds", spread(tally.ratios)),
        info(NAME, f"{database}: pictures/s, bare", spread(tally.bare_rates)),
        info(NAME, f"{database}: pictures/s, ours", spread(tally.our_rates)),
        info(NAME, f"{database}: processor ms a picture, bare", f"{1000 * tally.bare_cpu / made:.0f}"),
        info(
            NAME,
            f"{database}: processor ms a picture, ours",
            ", ".join(f"{part} {1000 * used / made:.0f}" for part, used in tally.our_cpu.items()),
        ),
        info(NAME, f"{database}: the same seeds give the same pixels", "yes" if tally.are_equal else "NO"),
    ]


def _used(service: Service) -> dict[str, float]:
    """Return the seconds of processor time that the parts of an instance have used so far."""
    used = {
        "engine": machine.cpu_seconds(machine.find_process(service.pid, "generation.engine")),
        "web, the bench's questions included": machine.cpu_seconds(
            machine.find_process(service.pid, "uvicorn")
        ),
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
