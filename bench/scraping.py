"""A crawl of hundreds of hosts by the real path, how it treats them, and what others make of the same web."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.databases import postgres_server, temporary_database
from bench.instance import Instance, free_port, temporary_instance
from bench.report import Figure, at_least, at_most, info
from bench.scraping_server import WINDOW_SECONDS
from bench.scraping_site import Web
from bench.scraping_watch import Watch
from bench.setting import Setting, say
from bench.subject import ROOT

NAME = "scraping"
IMAGES_PER_SECOND, MEMORY_MIB, RECALL = 50.0, 512.0, 0.99
INTERVAL_SECONDS, CONNECTIONS = 0.25, 2
"""How hosts are treated: all of them together may be asked far more often than the goal needs."""

SHORTEST_SECONDS = 0.8 * INTERVAL_SECONDS
"""What is sent at the right time may take a moment longer to arrive than what comes after it."""

CONCURRENCY = 32
WEB_PORT = 80
WORTHLESS = frozenset({"thumbnail", "icon", "cut", "fake", "missing", "broken", "forbidden", "unknown"})

Kept = tuple[str, int]
"""Kind and number of a picture: see :class:`bench.scraping_site.File`."""


@dataclass(frozen=True)
class Outcome:
    """What a tool has made of the web."""

    seconds: float
    """Of ours, until the last picture was taken in: after that it may wait for hosts that go on failing."""
    cpu_seconds: float
    kept: list[Kept]
    manners: dict[str, float]
    is_complete: bool = True

    @property
    def recalled(self) -> int:
        """How many of the wanted pictures were kept, in full size."""
        return len({number for kind, number in self.kept if kind in ("wanted", "copy")})


class Site:
    """The web, served by a process of its own."""

    def __init__(self, web: Web) -> None:
        self.web = web
        numbers = (web.port, web.hosts, web.pages, web.pictures)
        argv = [sys.executable, "-m", "bench.scraping_server", str(web.folder), *map(str, numbers)]
        self._process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        if self._read() != "ready":
            raise RuntimeError("The site did not start.")

    def reset(self) -> None:
        """Forget all that was noted: who comes now is the first one."""
        self._tell("reset")

    def manners(self) -> dict[str, float]:
        """Return how hosts were treated since then."""
        return dict(json.loads(self._tell("report")))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def _tell(self, word: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def run(setting: Setting) -> list[Figure]:
    """Crawl on SQLite and, where it answers, on PostgreSQL; then let other tools have the same web."""
    port = _port()
    hosts, pages, pictures = (40, 2, 5) if setting.quick else (200, 6, 8)
    web = Web(hosts=hosts, pages=pages, pictures=pictures, folder=setting.scratch / "scraping", port=port)
    say(f"drawing {web.wanted:,} pictures for {hosts} hosts")
    web.draw()
    site = Site(web)
    try:
        seconds = setting.pick(1800, 240)
        with temporary_instance() as instance:
            ours, figures = _crawl(setting, site, instance, "SQLite", seconds)
        if (server := postgres_server()) is None:
            figures.append(info(NAME, "PostgreSQL", "skipped: no server answers"))
        else:
            with temporary_database(server) as url, temporary_instance(database_url=url) as instance:
                figures += _crawl(setting, site, instance, "PostgreSQL", seconds)[1]
        return figures + _others(setting, site, ours, seconds)
    finally:
        site.close()
        shutil.rmtree(web.folder)


def _crawl(
    setting: Setting, site: Site, instance: Instance, database: str, seconds: int
) -> tuple[Outcome, list[Figure]]:
    """Crawl from the page that leads to all hosts, with the worker that ships."""
    web = site.web
    _configure(instance)
    out = setting.scratch / "crawl.json"
    site.reset()
    with _cluster(instance) as pid, Watch(pid) as watch:
        arguments = [web.hub, 1 + web.hosts * web.pages, min(10_000, 2 * web.wanted), seconds, pid, out]
        argv = [sys.executable, "-m", "bench.scraping_crawl", *map(str, arguments)]
        env = instance.env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"}
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{done.stderr[-2000:]}\n{instance.log.read_text()[-2000:]}")
    result = json.loads(out.read_text())
    if result["status"] != "completed":
        raise RuntimeError(f"The crawl is {result['status']}: {result['error']}")
    addresses = web.addresses()
    kept = [addresses.get(url, ("missing", -1)) for url, state, _ in result["items"] if state == "saved"]
    ours = Outcome(result["seconds_to_last"], result["cpu_seconds"], kept, site.manners())
    ends = Counter(f"{state} {reason}".strip() for _, state, reason in result["items"] if state != "saved")
    say(", ".join(f"{count} {end}" for end, count in ends.most_common()))
    say(f"{database}: {ours.recalled} of {web.wanted} in {ours.seconds:.1f} s")
    return ours, _figures(web, database, ours, result, watch)


def _figures(web: Web, database: str, ours: Outcome, result: dict[str, Any], watch: Watch) -> list[Figure]:
    manners = ours.manners
    what = f"{database}: {web.hosts} hosts, {web.wanted:,} pictures"
    taken = watch.cpu_seconds
    parts = ", ".join(
        f"{1000 * taken[role] / max(ours.recalled, 1):.1f}" for role in ("crawler", "worker", "decoder")
    )
    most = WINDOW_SECONDS / INTERVAL_SECONDS + 1
    return [
        at_least(
            NAME, f"{what}, into an album", ours.recalled / ours.seconds, IMAGES_PER_SECOND, unit=" images/s"
        ),
        info(NAME, f"{database}:   until the crawl had ended", f"{result['seconds']:.1f} s"),
        at_least(NAME, f"{database}:   wanted pictures that were kept", ours.recalled / web.wanted, RECALL),
        info(NAME, f"{database}:   also kept", _also_kept(ours)),
        info(NAME, f"{database}:   images in the album", str(result["in_album"])),
        info(NAME, f"{database}:   processor time, worker and all", _cpu(ours)),
        info(NAME, f"{database}:     of it crawler, worker, decoders (starting them included)", parts),
        at_most(NAME, f"{database}:   memory of the crawler at its peak", watch.peaks["crawler"], MEMORY_MIB, unit=" MiB"),
        at_most(NAME, f"{database}:   memory of its worker at its peak", watch.peaks["worker"], MEMORY_MIB, unit=" MiB"),
        at_most(NAME, f"{database}:   requests open at one host", manners["peak"], CONNECTIONS),
        at_most(
            NAME, f"{database}:   requests to one host in {WINDOW_SECONDS:g} s", manners["most_in_window"], most
        ),
        at_least(
            NAME,
            f"{database}:   shortest time between two requests, as a host saw them",
            manners["smallest_gap"],
            SHORTEST_SECONDS,
            unit=" s",
        ),
        at_most(NAME, f"{database}:   requests before Retry-After had passed", manners["early"], 0),
        at_most(NAME, f"{database}:   requests for what robots.txt forbids", manners["forbidden"], 0),
    ]  # fmt: skip


def _others(setting: Setting, site: Site, ours: Outcome, seconds: int) -> list[Figure]:
    """Let other tools have the same web, one after the other."""
    web, folder = site.web, setting.scratch / "others"
    gallery_dl = os.environ.get("GALLERY_DL") or shutil.which("gallery-dl")
    figures = []
    for name, argv, by_name in _programs(web, folder, gallery_dl):
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        site.reset()
        outcome = _run_other(argv, folder / "out", web, seconds, site, by_name=by_name)
        say(f"{name}: {outcome.recalled} of {web.wanted} in {outcome.seconds:.1f} s")
        figures += _figures_of_other(name, web, outcome, ours)
    if gallery_dl is None:
        figures.append(info(NAME, "gallery-dl", "skipped: not found (GALLERY_DL names it)"))
    elif web.port != WEB_PORT:
        figures.append(info(NAME, "gallery-dl, pages", f"skipped: it needs port {WEB_PORT}, which is taken"))
    shutil.rmtree(folder, ignore_errors=True)
    return figures


def _programs(web: Web, folder: Path, gallery_dl: str | None) -> Iterator[tuple[str, list[str], bool]]:
    """Yield name and command of each tool, and whether its files are named after addresses."""
    out = str(folder / "out")
    spider = [sys.executable, "-m", "bench.scraping_spider", out, web.hub]
    yield "Scrapy, plain spider and ImagesPipeline", spider, True
    if gallery_dl is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    lists = {"list": web.wanted_urls()}
    if web.port == WEB_PORT:  # it forgets the port of a page
        lists["pages"] = [f"generic:{url}" for url in web.page_urls()]
    for name, urls in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(urls))
        # Without retries: it would sleep for seconds before each, one address after the other.
        options = ["--quiet", "-R", "0", "-d", out, "-i", str(folder / f"{name}.txt")]
        yield f"gallery-dl, {name}", [gallery_dl, "--config-ignore", *options], False


def _run_other(
    argv: Sequence[str], out: Path, web: Web, seconds: float, site: Site, *, by_name: bool
) -> Outcome:
    started_at = time.monotonic()
    process = subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    taken = time.monotonic() - started_at
    files = [file for file in out.rglob("*") if file.is_file()]
    kept = list(_by_name(files, web) if by_name else _by_content(files, web))
    cpu = usage.ru_utime + usage.ru_stime
    return Outcome(taken, cpu, kept, site.manners(), is_complete=process.returncode >= 0)


def _by_name(files: Iterable[Path], web: Web) -> Iterator[Kept]:
    """Scrapy writes pictures anew and names them after the SHA-1 of their addresses."""
    known = {
        hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest(): kept
        for url, kept in web.addresses().items()
    }
    for file in files:
        yield known.get(file.stem, ("unknown", -1))


def _by_content(files: Iterable[Path], web: Web) -> Iterator[Kept]:
    known = web.contents()
    for file in files:
        yield known.get(hashlib.sha256(file.read_bytes()).hexdigest(), ("unknown", -1))


def _figures_of_other(name: str, web: Web, outcome: Outcome, ours: Outcome) -> list[Figure]:
    manners = outcome.manners
    rate = outcome.recalled / outcome.seconds
    ratio = ours.recalled / ours.seconds / rate if rate else float("inf")
    ended = "" if outcome.is_complete else ", ended when its time was over"
    told = f"{rate:.3g} images/s{ended}; {outcome.recalled / web.wanted:.3f}"
    return [
        info(NAME, f"{name}: rate; wanted pictures that were kept", told),
        info(
            NAME, f"{name}:   processor time; ours on SQLite, times its rate", f"{_cpu(outcome)}; {ratio:.2f}"
        ),
        info(NAME, f"{name}:   also kept", _also_kept(outcome)),
        info(
            NAME,
            f"{name}:   open at one host; before Retry-After; forbidden",
            f"{manners.get('peak', 0)}; {manners.get('early', 0)}; {manners.get('forbidden', 0)}",
        ),
    ]


def _also_kept(outcome: Outcome) -> str:
    """Say what was kept beside each wanted picture once."""
    kinds = Counter(kind for kind, _ in outcome.kept)
    copies = kinds["wanted"] + kinds["copy"] - outcome.recalled
    rubbish = sum(kinds[kind] for kind in WORTHLESS)
    named = ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(WORTHLESS) if kinds[kind])
    return (
        f"{rubbish} worthless{f' ({named})' if named else ''}, {copies} copies, {kinds['near']} near copies"
    )


def _cpu(outcome: Outcome) -> str:
    return f"{1000 * outcome.cpu_seconds / max(outcome.recalled, 1):.1f} ms/image"


def _configure(instance: Instance) -> None:
    """Have hosts treated so that politeness is real, and not what bounds the crawl."""
    path = instance.folder / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["scraping"] |= {
        "interval_seconds": INTERVAL_SECONDS,
        "connections_per_host": CONNECTIONS,
        "concurrency": CONCURRENCY,
        "max_pages": 100_000,
    }
    path.write_text(yaml.safe_dump(content))
    instance.env["IMAGEHUB_SCRAPING_ALLOW_PRIVATE"] = "127.77.0.0/16"


@contextmanager
def _cluster(instance: Instance) -> Iterator[int]:
    """Run the cluster ``scraping`` as the supervisor starts it; yields its process id."""
    argv = [sys.executable, "manage.py", "qcluster", "scraping"]
    with instance.log.open("ab") as log:
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=instance.env | {"Q_CLUSTER_NAME": "scraping"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port() -> int:
    """Return the port of the web, if this process may listen there, or a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.77.0.1", WEB_PORT))
        except OSError:
            return free_port()
    return WEB_PORT
