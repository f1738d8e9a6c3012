"""What is known of the disks of all machines, put together for those who look: the API, the command and the admin."""

from collections.abc import Sequence
from dataclasses import dataclass

from imagehub.operations.disk import FORECAST_DAYS, forecast, history, latest_of_each, systems_of
from imagehub.operations.filesystems import FileSystem
from imagehub.operations.forecast import MOST_POINTS, Forecast, growth_per_day
from imagehub.operations.models import DiskSnapshot


@dataclass(frozen=True)
class KindReport:
    """One kind of files of a root."""

    name: str
    bytes: int
    files: int
    growth_bytes_per_day: int | None


@dataclass(frozen=True)
class VolumeReport:
    """One managed root, or the bucket, and what is in it."""

    label: str
    kinds: list[KindReport]
    growth_bytes_per_day: int | None
    system: FileSystem | None
    """None for the bucket."""
    forecast: Forecast | None

    @property
    def size_bytes(self) -> int:
        """What all its files have."""
        return sum(kind.bytes for kind in self.kinds)

    @property
    def files(self) -> int:
        """How many there are."""
        return sum(kind.files for kind in self.kinds)


@dataclass(frozen=True)
class HostReport:
    """The newest snapshot of one machine, and what the ones before it say."""

    snapshot: DiskSnapshot
    systems: list[tuple[FileSystem, Forecast]]
    volumes: list[VolumeReport]


def reports() -> list[HostReport]:
    """Return what is known of each machine that is still there, by name."""
    return [report_of(snapshot) for snapshot in latest_of_each()]


def report_of(snapshot: DiskSnapshot) -> HostReport:
    """Return what a snapshot says, in the light of those before it."""
    before = history(snapshot.host, days=FORECAST_DAYS, most=MOST_POINTS)
    systems = [(system, forecast(system, before)) for system in systems_of(snapshot)]
    return HostReport(
        snapshot, systems, [_volume(label, snapshot, systems, before) for label in snapshot.usage]
    )


def _volume(
    label: str,
    snapshot: DiskSnapshot,
    systems: Sequence[tuple[FileSystem, Forecast]],
    before: Sequence[DiskSnapshot],
) -> VolumeReport:
    there = next(((system, ahead) for system, ahead in systems if label in system.roots), (None, None))
    kinds = [
        KindReport(name, used["bytes"], used["files"], _growth(before, label, name))
        for name, used in snapshot.usage[label].items()
    ]
    return VolumeReport(label, kinds, _growth(before, label), *there)


def _growth(snapshots: Sequence[DiskSnapshot], label: str, kind: str | None = None) -> int | None:
    points = [
        (snapshot.taken_at, sum(used["bytes"] for name, used in kinds.items() if kind in (None, name)))
        for snapshot in snapshots
        if (kinds := snapshot.usage.get(label)) is not None
    ]
    growth = growth_per_day(points)
    return None if growth is None else round(growth)
