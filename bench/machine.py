"""What the machine and its processes are doing, read from /proc."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


@dataclass
class Moment:
    """The machine's counters at one moment."""

    load: float = field(default_factory=lambda: os.getloadavg()[0])
    at: float = field(default_factory=time.monotonic)
    busy: float = field(default_factory=lambda: _busy_seconds())

    def until(self, later: "Moment") -> str:
        """Say how busy the machine was between two moments, whoever kept it so."""
        cores = (later.busy - self.busy) / max(later.at - self.at, 1e-6)
        return f"load {self.load:.1f} -> {later.load:.1f}, {cores:.2f} of {os.cpu_count()} cores busy"


def process_tree(pid: int) -> set[int]:
    """Return a process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and all that descend from it, those that have ended included."""
    ticks = 0
    for one in process_tree(pid):
        with suppress(OSError, IndexError, ValueError):
            ticks += sum(int(value) for value in _stat(one)[11:15])
    return ticks / TICKS


def own_cpu_seconds(pid: int) -> float:
    """Return the processor time of one process.

    Raises:
        OSError, IndexError: it has ended.
    """
    return sum(int(value) for value in _stat(pid)[11:13]) / TICKS


def memory_mib(pid: int) -> tuple[float, float]:
    """Return the proportional and the resident size of one process, in MiB."""
    sizes = {"Pss:": 0, "Rss:": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if name in sizes:
            sizes[name] = int(rest.split()[0])
    return sizes["Pss:"] / 1024, sizes["Rss:"] / 1024


def peak_rss_mib(pid: int) -> float:
    """Return the largest resident size that a process has had, in MiB.

    Raises:
        OSError: it has ended.
        ValueError: it has just ended.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError("The process has no memory any more.")


def tree_pss_mib(pid: int) -> float:
    """Return the proportional size of a process and all that descend from it, in MiB."""
    return sum(memory_mib(one)[0] for one in process_tree(pid))


def find_process(root: int, word: str) -> int:
    """Return the process below a root whose command line holds a word.

    Raises:
        LookupError: there is none.
    """
    for pid in sorted(process_tree(root) - {root}):
        with suppress(OSError):
            if word in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " "):
                return pid
    raise LookupError(f"No process below {root} has “{word}” in its command line.")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (the second may hold spaces)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _busy_seconds() -> float:
    user, nice, system, _idle, _wait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS
