"""Watching the processes that take part in a crawl."""

import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Self

from bench import machine

WATCH_SECONDS = 0.5


class Watch:
    """What the processes of a cluster take, by their roles: ``crawler``, ``worker`` and ``decoder``."""

    def __init__(self, pid: int) -> None:
        self.peaks: dict[str, float] = defaultdict(float)
        """The largest resident size of one process, in MiB, as the kernel keeps it."""
        self._pid = pid
        self._cpu: dict[tuple[str, int], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """Processor time since the processes began, but for the last moments of those that have ended."""
        seconds: dict[str, float] = defaultdict(float)
        for (role, _), taken in self._cpu.items():
            seconds[role] += taken
        return seconds

    def _run(self) -> None:
        while not self._over.wait(WATCH_SECONDS):
            for pid in machine.process_tree(self._pid):
                with suppress(OSError, ValueError, IndexError):
                    role = _role(pid)
                    self._cpu[role, pid] = machine.own_cpu_seconds(pid)
                    self.peaks[role] = max(self.peaks[role], machine.peak_rss_mib(pid))


def _role(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    if b"scraping.crawler" in command:
        return "crawler"
    return "worker" if b"qcluster" in command else "decoder"
