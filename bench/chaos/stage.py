"""The instance that is treated badly, and what starts its supervisor anew as an init system would."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from bench.instance import Instance, free_port
from bench.machine import process_tree
from bench.subject import ROOT
from imagehub.jobs import parent_death

MEDIA_BYTES = 96 * 1024 * 1024
RESERVE_BYTES = 8 * 1024 * 1024
RESTART_SECONDS = 1.0
TEND_SECONDS = 0.2
STOP_SECONDS = 90.0
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
LATE = "did not end within its grace time"
"""What the supervisor says of a service that it had to kill."""

_ROLES = {"main": "main", "idle": "idle", "monitor": "monitor", "pusher": "pusher"}
_PROGRAM = re.compile(
    r"supervise|uvicorn|generation\.engine|training\.\w+|scraping\.crawler|albums\.decoding"
)


class Stage:
    """Everything that ``make run`` starts, on the databases it is given. Ours is the part of systemd."""

    def __init__(self, folder: Path, *, database_url: str, redis_url: str, site: str) -> None:
        self.instance = Instance(folder, database_url=database_url)
        self.media = folder / "media"
        self.instance.env |= {
            "REDIS_URL": redis_url,
            "IMAGEHUB_MEDIA_ROOT": str(self.media),
            "IMAGEHUB_SCRAPING_ALLOW_PRIVATE": site,
            "IMAGEHUB_LOG_FORMAT": "json",
        }
        self.port = free_port()
        self.starts = 0
        self._not_before = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        _configure(folder / "config.yaml")

    @contextmanager
    def small_disk(self) -> Iterator[bool]:
        """Put the media root on a disk of its own while the block lasts; yield whether that was possible."""
        self.media.mkdir(exist_ok=True)
        argv = ["mount", "-t", "tmpfs", "-o", f"size={MEDIA_BYTES},mode=700", "chaos", str(self.media)]
        is_mounted = (
            os.geteuid() == 0 and not subprocess.run(argv, check=False, capture_output=True).returncode
        )
        try:
            yield is_mounted
        finally:
            if is_mounted:
                subprocess.run(["umount", "--lazy", str(self.media)], check=False)

    def fill(self) -> None:
        """Leave no byte free on the disk of the media root."""
        with suppress(OSError), (self.media / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))

    def free(self) -> None:
        """Take back what :meth:`fill` did."""
        (self.media / "filler").unlink(missing_ok=True)

    def start(self) -> None:
        """Start the supervisor. What its dead children leave behind is ours from then on."""
        _adopt_orphans()
        with self.instance.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "supervise", "--port", str(self.port), "--grace", "40"],
                cwd=ROOT,
                env=self.instance.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=parent_death.before_exec(signal.SIGTERM),
            )
        self.starts += 1

    def tend(self, seconds: float) -> None:
        """Let time go by, and start the supervisor again when it has ended; its leftovers are killed first, as by systemd."""
        deadline = time.monotonic() + seconds
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                if not self._not_before:
                    self.kill_leftovers()
                    self._not_before = time.monotonic() + RESTART_SECONDS
                elif time.monotonic() >= self._not_before:
                    self._not_before = 0.0
                    self.start()
            if (left := deadline - time.monotonic()) <= 0:
                return
            time.sleep(min(TEND_SECONDS, left))

    def victims(self) -> dict[str, list[int]]:
        """Return the processes of the instance, by what they are."""
        found: dict[str, list[int]] = {}
        if self._process is not None and self._process.poll() is None:
            for pid in sorted(process_tree(self._process.pid)):
                if title := _title(pid):
                    found.setdefault(title, []).append(pid)
        return found

    def stop(self) -> list[str]:
        """End everything in order; return what was left of it, by name."""
        process = self._process
        if process is None:
            return []
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            left = ["supervise, which did not end"]
            process.kill()
            process.wait()
        else:
            left = []
        self._process = None
        late = [line for line in self.instance.log.read_text().splitlines() if LATE in line]
        return left + late + self.kill_leftovers()

    def kill_leftovers(self) -> list[str]:
        """Kill the orphans of the supervisor; return what they were."""
        killed = []
        while orphans := [pid for pid in _children() if self._is_orphan(pid)]:
            for pid in orphans:
                for one in process_tree(pid):
                    if title := _title(one):
                        killed.append(title)
                    with suppress(ProcessLookupError):
                        os.kill(one, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        return killed

    @staticmethod
    def _is_orphan(pid: int) -> bool:
        """Tell whether a child of ours was a descendant of the instance: we start no Python ourselves but the supervisor."""
        with suppress(OSError):
            command = Path(f"/proc/{pid}/exe").readlink().name
            return command.startswith("python") and not _is_supervisor(pid)
        return False


def _adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, as init would (prctl(2)). Linux only, as all of this."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _is_supervisor(pid: int) -> bool:
    return _title(pid) == "supervise"


def _children() -> list[int]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def _title(pid: int) -> str:
    """Return what a process is; nothing where it has ended or is none of the instance's."""
    with suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
        if line.startswith("qcluster"):
            words = line.split()
            return f"qcluster {_ROLES.get(words[-1], 'busy' if 'processing' in words else 'guard')}"
        if found := _PROGRAM.search(line):
            return found.group()
        return "qcluster starting" if "qcluster" in line else ""
    return ""


def _configure(path: Path) -> None:
    """Make the disk small enough to fill up, training tiny and scraping quick."""
    content = yaml.safe_load(path.read_text())
    content["storage"]["minimum_free_bytes"] = RESERVE_BYTES
    content["training"] |= {"minimum_images": 4, "max_active": 4, "grace_seconds": 15}
    content["scraping"] |= {"interval_seconds": 0.1, "minimum_side": 32, "idle_seconds": 60}
    path.write_text(yaml.safe_dump(content))
