import json
import socket
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.template.defaultfilters import filesizeformat

from imagehub.config import get_config
from imagehub.operations import disk
from imagehub.operations.disk_report import HostReport, report_of
from imagehub.operations.filesystems import FileSystem, file_systems


class Command(BaseCommand):
    help = "Show how full the disks of this machine are, and with what. Exits with 1 if one is fuller than disk.alert_percent."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--sample", action="store_true", help="Look at all files now, and remember it; alerts are sent."
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print one JSON object.")

    def handle(self, *, sample: bool, as_json: bool, **options: Any) -> None:
        if sample and disk.look(is_sample_due=True) is None:
            self.stderr.write("Another process is looking at the files: what it saw before is shown.")
        systems = file_systems()
        newest = disk.latest(socket.gethostname())
        report = report_of(newest) if newest else None
        threshold = get_config().disk.alert_percent
        full = [system for system in systems if system.fullness >= threshold]
        if as_json:
            self.stdout.write(json.dumps(_as_json(systems, report, threshold)))
        else:
            self._tell(systems, report, threshold)
        if full:
            raise SystemExit(1)

    def _tell(self, systems: list[FileSystem], report: HostReport | None, threshold: float) -> None:
        ahead = {system.name: forecast for system, forecast in report.systems} if report else {}
        rows = [("FILE SYSTEM", "SIZE", "USED", "FREE", "FULL", "GROWTH A DAY", "DAYS LEFT")]
        for system in systems:
            forecast = ahead.get(system.name)
            rows.append(
                (
                    f"{system.mount} ({system.name})",
                    _size(system.total_bytes),
                    _size(system.used_bytes),
                    _size(system.free_bytes),
                    f"{system.fullness:g} %" + (" !" if system.fullness >= threshold else ""),
                    _size(forecast.growth_bytes_per_day if forecast else None),
                    "-" if forecast is None or forecast.days_left is None else f"{forecast.days_left:g}",
                )
            )
        self._table(rows)
        self.stdout.write("")
        if report is None:
            self.stdout.write("What the space is used for was never looked at here: use --sample.")
            return
        rows = [("ROOT", "KIND", "BYTES", "FILES", "GROWTH A DAY")]
        rows += [
            (volume.label, kind.name, _size(kind.bytes), str(kind.files), _size(kind.growth_bytes_per_day))
            for volume in report.volumes
            for kind in volume.kinds
        ]
        self._table(rows)
        self.stdout.write(f"\nFiles were looked at {report.snapshot.taken_at:%Y-%m-%d %H:%M} UTC.")

    def _table(self, rows: list[tuple[str, ...]]) -> None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())


def _size(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else filesizeformat(size_bytes).replace("\xa0", " ")


def _as_json(systems: list[FileSystem], report: HostReport | None, threshold: float) -> dict[str, Any]:
    ahead = {system.name: vars(forecast) for system, forecast in report.systems} if report else {}
    return {
        "host": socket.gethostname(),
        "threshold_percent": threshold,
        "filesystems": [vars(system) | {"forecast": ahead.get(system.name)} for system in systems],
        "looked_at": report.snapshot.taken_at.isoformat() if report else None,
        "volumes": report.snapshot.usage if report else {},
    }
