"""The comparison that chose the web server: requests a second, latency, processor time, memory and listeners."""

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench import machine
from bench.databases import postgres_server, temporary_database
from bench.instance import Instance, Service, free_port, temporary_instance
from bench.report import Figure, info, percentile
from bench.setting import Setting, say
from bench.subject import ROOT
from imagehub.jobs import parent_death

NAME = "web_server"
THREADS = 8
CONNECTIONS = 8
LISTENERS = 200
IMAGES = 500
STREAM = "/api/jobs/x/events"
PATHS = ("/api/health/live", "/api/images?limit=24")

HYBRID, PLAIN, GTHREAD = "shipped hybrid", "Django ASGI", f"gunicorn gthread 1x{THREADS}"


@dataclass
class Rounds:
    """What some rounds of load on one server and path showed."""

    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p95: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    failures: int = 0


def uvicorn(application: str, *extra: str) -> Callable[[int], list[str]]:
    """Return what starts uvicorn on a port, as ``manage.py supervise`` does."""
    argv = [sys.executable, "-m", "uvicorn", application, "--no-access-log", "--no-server-header"]
    argv += ["--log-level", "warning", "--timeout-graceful-shutdown", "2", *extra]
    return lambda port: [*argv, "--port", str(port)]


def gunicorn(port: int) -> list[str]:
    """Return what starts gunicorn with one worker of threads on a port."""
    argv = [sys.executable, "-m", "gunicorn", "imagehub.wsgi:application", "--worker-class", "gthread"]
    argv += ["--workers", "1", "--threads", str(THREADS), "--keep-alive", "60", "--graceful-timeout", "2"]
    return [*argv, "--log-level", "warning", "--bind", f"127.0.0.1:{port}"]


def servers() -> dict[str, Callable[[int], list[str]]]:
    """Return the servers that are compared."""
    return {
        HYBRID: uvicorn("imagehub.asgi:application"),
        PLAIN: uvicorn("bench.plain_asgi:application", "--lifespan", "off"),
        GTHREAD: gunicorn,
    }


def run(setting: Setting) -> list[Figure]:
    """Compare on SQLite and, where it answers, on PostgreSQL; then with listeners."""
    figures = []
    with temporary_instance(extra_app="bench.listening.Listening") as instance:
        figures += _compare(setting, instance, "SQLite")
    if (server := postgres_server()) is None:
        return [*figures, info(NAME, "PostgreSQL", "skipped: no server answers")]
    with (
        temporary_database(server) as url,
        temporary_instance(database_url=url, extra_app="bench.listening.Listening") as instance,
    ):
        return figures + _compare(setting, instance, "PostgreSQL")


def _compare(setting: Setting, instance: Instance, database: str) -> list[Figure]:
    rounds, seconds = setting.pick(5, 1), setting.pick(3, 2)
    instance.add_images(IMAGES)
    results: dict[tuple[str, str], Rounds] = defaultdict(Rounds)
    with ExitStack() as stack:
        running = {}
        for name, argv in servers().items():
            port = free_port()
            running[name] = stack.enter_context(instance.serving(argv(port), port))
        for turn in range(rounds + 1):
            for path in PATHS:
                for name, service in running.items():
                    # The first turn only warms up: connections, caches, imports.
                    found = results[name, path] if turn else Rounds()
                    load(service, path, found, seconds=seconds if turn else 1)
        figures = [figure for path in PATHS for figure in _figures(database, path, list(running), results)]
        say(f"{database}: {rounds} rounds of {seconds} s done")
        for name, service in running.items():
            figures += _with_listeners(setting, database, name, service)
    return figures


def _figures(
    database: str, path: str, names: list[str], results: dict[tuple[str, str], Rounds]
) -> list[Figure]:
    """Return one figure for each server and path, with its rate as a share of the shipped server's."""
    figures = []
    shipped = results[HYBRID, path]
    for name in names:
        one = results[name, path]
        share = statistics.median(
            rate / reference for rate, reference in zip(one.rates, shipped.rates, strict=True)
        )
        figures.append(info(NAME, f"{database}: {path}, {name}", f"{_summary(one)}, rate x{share:.2f}"))
    return figures


def _summary(found: Rounds) -> str:
    text = (
        f"{statistics.median(found.rates):.0f}/s, p50 {statistics.median(found.p50):.1f} ms, "
        f"p95 {statistics.median(found.p95):.1f} ms, CPU {statistics.median(found.cpu):.2f} ms"
    )
    return text + (f", {found.failures} FAILED" if found.failures else "")


def load(service: Service, path: str, found: Rounds, *, seconds: int) -> None:
    """Put load on a server from a process of its own, and add what it showed."""
    argv = [sys.executable, "-m", "bench.load", "--port", str(service.port), "--path", path]
    argv += ["--connections", str(CONNECTIONS), "--seconds", str(seconds)]
    cpu_before = machine.cpu_seconds(service.pid)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    cpu = machine.cpu_seconds(service.pid) - cpu_before
    answer = json.loads(done.stdout)
    times = answer["times"]
    found.failures += len(answer["failures"])
    if times:
        found.rates.append(len(times) / answer["seconds"])
        found.p50.append(1000 * percentile(times, 0.5))
        found.p95.append(1000 * percentile(times, 0.95))
        found.cpu.append(1000 * cpu / len(times))


def _with_listeners(setting: Setting, database: str, name: str, service: Service) -> list[Figure]:
    """Open idle streams, and see what is left for requests: rounds without and with them take turns."""
    count = THREADS if name == GTHREAD else LISTENERS
    without, beside = Rounds(), Rounds()
    memory, memory_beside, begun = [], [], []
    for _ in range(1 if name == GTHREAD else setting.pick(3, 1)):
        load(service, PATHS[1], without, seconds=2)
        memory.append(machine.tree_pss_mib(service.pid))
        with listeners(service, count) as streams:
            begun.append(streams)
            memory_beside.append(machine.tree_pss_mib(service.pid))
            load(service, PATHS[1], beside, seconds=2)
    if beside.rates:
        shares = [one / other for one, other in zip(beside.rates, without.rates, strict=True)]
        answered = f"{_summary(beside)}, rate x{statistics.median(shares):.2f} of without"
    else:
        answered = f"not one request was answered within 20 s ({beside.failures} waited)"
    what = f"{database}: PSS of {name}, without; with {count} listeners"
    return [
        info(NAME, f"{database}: {PATHS[1]} beside {count} listeners, {name}", answered),
        info(
            NAME,
            what,
            f"{statistics.median(memory):.0f}; {statistics.median(memory_beside):.0f} MiB ({min(begun)} streams began)",
        ),
    ]


@contextmanager
def listeners(service: Service, count: int, *, path: str = STREAM) -> Iterator[int]:
    """Keep streams open while the block lasts; yield how many have begun."""
    argv = [sys.executable, "-m", "bench.load", "--port", str(service.port), "--path", path]
    argv += ["--token", service.token]
    process = subprocess.Popen(
        [*argv, "--listen", str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=parent_death.before_exec(),
    )
    try:
        assert process.stdout
        yield json.loads(process.stdout.readline())["begun"]
    finally:
        process.communicate("", timeout=20)
