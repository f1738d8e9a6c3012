from typing import Any

from django.db.models import Q
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from imagehub.api.filters import refuse_unknown_parameters
from imagehub.api.permissions import StaffOnly
from imagehub.api.serializers import StrictSerializer
from imagehub.config import get_config
from imagehub.operations import disk
from imagehub.operations.disk_report import HostReport, VolumeReport, reports
from imagehub.operations.filesystems import FileSystem
from imagehub.operations.forecast import Forecast
from imagehub.operations.models import DiskAlert, DiskSnapshot

MOST_DAYS = 3650
MOST_ALERTS = 100


class DiskUsageSerializer(serializers.Serializer):
    """How full a file system is."""

    path = serializers.CharField(source="mount", help_text="Where it is mounted.")
    total_bytes = serializers.IntegerField()
    used_bytes = serializers.IntegerField()
    free_bytes = serializers.IntegerField()
    percent_used = serializers.FloatField()
    inodes_percent_used = serializers.FloatField(
        help_text="Of the files that there can be; 0 without a limit."
    )


class DiskForecastSerializer(serializers.Serializer):
    growth_bytes_per_day = serializers.IntegerField(
        allow_null=True, help_text="Over the last 30 days. Null: too little is known."
    )
    days_left = serializers.FloatField(
        allow_null=True,
        help_text="Until only the reserve is left. Null: it does not grow, or nobody can tell.",
    )


class FileSystemSerializer(serializers.Serializer):
    """One file system of one machine."""

    host = serializers.CharField()
    name = serializers.CharField(help_text="The roots that lie on it.")
    roots = serializers.ListField(child=serializers.CharField())
    usage = DiskUsageSerializer()
    forecast = DiskForecastSerializer()


class FileKindUsageSerializer(serializers.Serializer):
    """One kind of files."""

    name = serializers.CharField()
    bytes = serializers.IntegerField()
    files = serializers.IntegerField()
    growth_bytes_per_day = serializers.IntegerField(allow_null=True)


class VolumeSerializer(serializers.Serializer):
    """One managed root of one machine, or the bucket, which has no file system."""

    host = serializers.CharField()
    label = serializers.CharField()
    size_bytes = serializers.IntegerField()
    files = serializers.IntegerField()
    growth_bytes_per_day = serializers.IntegerField(allow_null=True)
    kinds = FileKindUsageSerializer(many=True)
    filesystem = serializers.CharField(allow_null=True)
    usage = DiskUsageSerializer(allow_null=True)
    days_left = serializers.FloatField(allow_null=True)


class DiskAlertSerializer(serializers.ModelSerializer):
    """A file system that is too full, or was."""

    class Meta:
        model = DiskAlert
        fields = [
            "host", "filesystem", "roots", "percent_used", "threshold_percent", "raised_at", "cleared_at",
        ]  # fmt: skip
        read_only_fields = fields


class PastUsageSerializer(serializers.Serializer):
    """What was seen of one machine at one time."""

    host = serializers.CharField()
    taken_at = serializers.DateTimeField()
    filesystems = serializers.ListField(child=serializers.DictField())
    volumes = serializers.DictField(
        child=serializers.DictField(child=serializers.IntegerField()),
        help_text="Bytes by root and kind.",
    )


class DiskStatsSerializer(serializers.Serializer):
    """How full the disks are, with what, and since when."""

    generated_at = serializers.DateTimeField(allow_null=True, help_text="Of the newest snapshot.")
    threshold_percent = serializers.FloatField()
    sample_hours = serializers.IntegerField()
    filesystems = FileSystemSerializer(many=True)
    volumes = VolumeSerializer(many=True)
    alerts = DiskAlertSerializer(
        many=True, help_text="Those that are open, and what the history has seen end."
    )
    history = PastUsageSerializer(many=True, help_text="At most 200 of each machine, the oldest first.")


class DiskQuerySerializer(StrictSerializer):
    days = serializers.IntegerField(default=30, min_value=1, max_value=MOST_DAYS)


class DiskStatsView(APIView):
    """The disks of all machines."""

    permission_classes = [StaffOnly]

    @extend_schema(
        operation_id="disk_stats",
        parameters=[
            OpenApiParameter("days", int, description=f"How far back the history goes: 1 to {MOST_DAYS}; 30.")
        ],
        responses=DiskStatsSerializer,
    )
    def get(self, request: Request) -> Response:
        refuse_unknown_parameters(request, known={"days"})
        query = DiskQuerySerializer(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        return Response(DiskStatsSerializer(_stats(query.validated_data["days"])).data)


def _stats(days: int) -> dict[str, Any]:
    found = reports()
    limits = get_config().disk
    past = [snapshot for report in found for snapshot in disk.history(report.snapshot.host, days=days)]
    since = min((snapshot.taken_at for snapshot in past), default=None)
    alerts = (
        DiskAlert.objects.filter(Q(cleared_at=None) | Q(cleared_at__gte=since))
        if since
        else disk.open_alerts()
    )
    return {
        "generated_at": max((report.snapshot.taken_at for report in found), default=None),
        "threshold_percent": limits.alert_percent,
        "sample_hours": limits.sample_hours,
        "filesystems": [_system(report, *pair) for report in found for pair in report.systems],
        "volumes": [_volume(report, volume) for report in found for volume in report.volumes],
        "alerts": alerts.order_by("-raised_at", "-id")[:MOST_ALERTS],
        "history": [_past(snapshot) for snapshot in past],
    }


def _system(report: HostReport, system: FileSystem, ahead: Forecast) -> dict[str, Any]:
    return {
        "host": report.snapshot.host,
        "name": system.name,
        "roots": system.roots,
        "usage": system,
        "forecast": ahead,
    }


def _volume(report: HostReport, volume: VolumeReport) -> dict[str, Any]:
    return {
        "host": report.snapshot.host,
        "label": volume.label,
        "size_bytes": volume.size_bytes,
        "files": volume.files,
        "growth_bytes_per_day": volume.growth_bytes_per_day,
        "kinds": volume.kinds,
        "filesystem": volume.system.name if volume.system else None,
        "usage": volume.system,
        "days_left": volume.forecast.days_left if volume.forecast else None,
    }


def _past(snapshot: DiskSnapshot) -> dict[str, Any]:
    shown = ("name", "used_bytes", "free_bytes", "percent_used")
    return {
        "host": snapshot.host,
        "taken_at": snapshot.taken_at,
        "filesystems": [{name: system[name] for name in shown} for system in snapshot.filesystems],
        "volumes": {
            label: {kind: used["bytes"] for kind, used in kinds.items()}
            for label, kinds in snapshot.usage.items()
        },
    }
