"""The file systems that the managed roots lie on."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from imagehub.room import nearest_folder
from imagehub.roots import every_root

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileSystem:
    """One file system of this machine, and how full it is."""

    name: str
    """The roots that lie on it: what it is called where paths are not told."""
    mount: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    """What we may still write. What is kept for the superuser is neither free nor used."""
    percent_used: float
    """As ``df`` tells it: of what is used and free."""
    inodes_percent_used: float
    """Of the files that there can be; 0 where there is no limit."""
    roots: list[str]

    @property
    def fullness(self) -> float:
        """How full it is, in per cent, be it with bytes or with files."""
        return max(self.percent_used, self.inodes_percent_used)


def file_systems() -> list[FileSystem]:
    """Return those that our roots lie on, each once. A root that cannot be looked at is logged and left out."""
    by_device: dict[int, _Seen] = {}
    for name, path in every_root().items():
        try:
            there = nearest_folder(path)
            device = there.stat().st_dev
            if device not in by_device:
                by_device[device] = _Seen(_mount_of(there), os.statvfs(there))
        except OSError as error:  # its text would name the path
            logger.error("The disk of the %s files cannot be looked at: %s", name, error.strerror)
        else:
            by_device[device].roots.append(name)
    return [_told(seen) for seen in by_device.values()]


@dataclass
class _Seen:
    mount: Path
    figures: os.statvfs_result
    roots: list[str] = field(default_factory=list)


def _told(seen: _Seen) -> FileSystem:
    found = seen.figures
    unit = found.f_frsize
    used, free = (found.f_blocks - found.f_bfree) * unit, found.f_bavail * unit
    return FileSystem(
        name=", ".join(seen.roots),
        mount=str(seen.mount),
        total_bytes=found.f_blocks * unit,
        used_bytes=used,
        free_bytes=free,
        percent_used=_percent(used, used + free),
        inodes_percent_used=_percent(found.f_files - found.f_ffree, found.f_files),
        roots=seen.roots,
    )


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _mount_of(path: Path) -> Path:
    path = path.resolve()
    while not path.is_mount():
        path = path.parent
    return path
