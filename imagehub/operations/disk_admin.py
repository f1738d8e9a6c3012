"""The disks in the admin: what was seen, what was alarming, who was told, and how it all went as a picture."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from imagehub.admin_lists import ReadOnlyAdmin
from imagehub.config import get_config
from imagehub.operations import disk
from imagehub.operations.disk_drawings import COLORS, stacked
from imagehub.operations.disk_report import HostReport, VolumeReport, reports
from imagehub.operations.filesystems import FileSystem
from imagehub.operations.forecast import Forecast
from imagehub.operations.models import DiskAlert, DiskSnapshot, Notice

PERIODS = (7, 30, 180)
"""Days that the chart can show."""

NOTHING = "\N{EN DASH}"


@admin.register(DiskSnapshot)
class DiskSnapshotAdmin(ReadOnlyAdmin):
    """What was seen each few hours, and the chart of all that."""

    list_display = ["taken_at", "host", "fullest", "files", "seconds"]
    list_filter = ["host"]
    ordering = ["-taken_at", "-id"]
    change_list_template = "admin/operations/disksnapshot/change_list.html"

    @admin.display(description="Fullest file system")
    def fullest(self, snapshot: DiskSnapshot) -> str:
        systems = disk.systems_of(snapshot)
        fullest = max(systems, key=lambda system: system.fullness, default=None)
        return f"{fullest.fullness:.1f} % ({fullest.name})" if fullest else NOTHING

    @admin.display(description="Files")
    def files(self, snapshot: DiskSnapshot) -> str:
        used = [used for kinds in snapshot.usage.values() for used in kinds.values()]
        return (
            f"{sum(kind['files'] for kind in used):,} ({filesizeformat(sum(kind['bytes'] for kind in used))})"
        )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.chart)
        return [path("chart/", view, name="operations_disksnapshot_chart"), *super().get_urls()]

    def chart(self, request: HttpRequest) -> HttpResponse:
        """Show how full the disks were, and with what."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = request.GET.get("days", "")
        days = int(asked) if asked in map(str, PERIODS) else PERIODS[1]
        context = self.admin_site.each_context(request) | {
            "opts": self.opts,
            "title": "Disks",
            "days": days,
            "periods": PERIODS,
            "alerts": disk.open_alerts(),
            "hosts": [_host(report, days) for report in reports()],
        }
        return TemplateResponse(request, "admin/operations/disksnapshot/chart.html", context)


@admin.register(DiskAlert)
class DiskAlertAdmin(ReadOnlyAdmin):
    """Which file systems were too full, and when."""

    list_display = ["raised_at", "host", "filesystem", "percent_used", "threshold_percent", "cleared_at"]
    list_filter = [("cleared_at", admin.EmptyFieldListFilter), "host"]
    ordering = ["-raised_at", "-id"]


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    """What operators were told, and what has not arrived."""

    list_display = ["created_at", "channel", "name", "sentence", "sent_at", "tries", "failure"]
    list_filter = ["channel", "name", ("sent_at", admin.EmptyFieldListFilter)]
    ordering = ["-created_at", "-id"]


def _host(report: HostReport, days: int) -> dict[str, Any]:
    past = disk.history(report.snapshot.host, days=days)
    return {
        "snapshot": report.snapshot,
        "systems": [_system(system, ahead, past) for system, ahead in report.systems],
        "volumes": [_volume(volume, past) for volume in report.volumes],
    }


def _system(system: FileSystem, ahead: Forecast, past: list[DiskSnapshot]) -> dict[str, Any]:
    threshold = get_config().disk.alert_percent
    seen = [
        (snapshot.taken_at, values["used_bytes"])
        for snapshot in past
        for values in snapshot.filesystems
        if values["name"] == system.name
    ]
    usable = system.used_bytes + system.free_bytes
    label = f"Used of the disk of {system.name}: {filesizeformat(seen[-1][1] if seen else 0)} of {filesizeformat(usable)}"
    return {
        "system": system,
        "ahead": ahead,
        "is_full": system.fullness >= threshold,
        "drawing": stacked(
            [at for at, _ in seen],
            {"used": [used for _, used in seen]},
            label=label,
            top=usable,
            mark=usable * threshold / 100,
        ),
    }


def _volume(volume: VolumeReport, past: list[DiskSnapshot]) -> dict[str, Any]:
    seen = [
        (snapshot.taken_at, kinds)
        for snapshot in past
        if (kinds := snapshot.usage.get(volume.label)) is not None
    ]
    layers = {
        kind.name: [kinds.get(kind.name, {}).get("bytes", 0) for _, kinds in seen] for kind in volume.kinds
    }
    said = ", ".join(f"{kind.name} {filesizeformat(kind.bytes)}" for kind in volume.kinds)
    return {
        "volume": volume,
        "kinds": [(number % COLORS, kind) for number, kind in enumerate(volume.kinds)],
        "drawing": stacked([at for at, _ in seen], layers, label=f"Files of {volume.label} by kind: {said}"),
    }
