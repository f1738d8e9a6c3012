from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from albums.set_templates.validation import LONGEST_THEME, MAX_ROWS
from generation.api.serializers import JobImageSerializer, ParametersSerializer
from generation.models import SetRun
from generation.services.contact_sheets import FORMATS
from generation.services.set_runs import Progress
from imagehub.api.jobs import JobErrorSerializer
from imagehub.api.serializers import (
    StrictCharField,
    StrictIntegerField,
    StrictModelSerializer,
    StrictSerializer,
)
from imagehub.jobs.models import JobStatus


class GenerateSetSerializer(ParametersSerializer):
    """The body of ``POST /api/albums/{id}/generate``. What is left out is the set's, or else the base model's."""

    theme = StrictCharField(max_length=LONGEST_THEME)
    album_name = StrictCharField(
        max_length=200, required=False, help_text="Of the album that is made. Default: the set and the time."
    )
    rows = serializers.ListField(
        child=StrictIntegerField(min_value=0),
        required=False,
        allow_empty=False,
        max_length=MAX_ROWS,
        help_text="The indexes of the rows to make, from 0. Default: all.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("album") and "album_name" in attrs:
            raise serializers.ValidationError(
                {"album_name": "Name an album that is there, or what a new one is called."}
            )
        return super().validate(attrs)


class SetItemSerializer(StrictSerializer):
    """One picture of a set run."""

    index = serializers.IntegerField(help_text="Of its row in the set, from 0.")
    name = serializers.CharField()
    status = serializers.ChoiceField(JobStatus.choices)
    job = serializers.UUIDField()
    image = JobImageSerializer(allow_null=True)
    error = JobErrorSerializer(allow_null=True)


class SetRunSerializer(StrictModelSerializer):
    """A set run: how many of its pictures stand where, and what follows from that."""

    status = serializers.ChoiceField(JobStatus.choices, read_only=True)
    message = serializers.CharField(read_only=True, help_text="How many pictures are missing, once some are.")
    owner = serializers.CharField(read_only=True)
    queued = serializers.IntegerField(read_only=True)
    running = serializers.IntegerField(read_only=True)
    completed = serializers.IntegerField(read_only=True)
    failed = serializers.IntegerField(read_only=True)
    cancelled = serializers.IntegerField(read_only=True)
    progress = serializers.IntegerField(read_only=True, help_text="Percent.")
    eta_seconds = serializers.FloatField(read_only=True, allow_null=True)
    finished_at = serializers.DateTimeField(read_only=True, allow_null=True)
    items_url = serializers.CharField(read_only=True)
    contact_sheet_url = serializers.CharField(read_only=True)

    class Meta:
        model = SetRun
        fields = [
            "id", "status", "message", "owner", "template", "album", "theme", "total", "queued", "running", "completed",
            "failed", "cancelled", "progress", "eta_seconds", "created_at", "finished_at", "items_url",
            "contact_sheet_url",
        ]  # fmt: skip
        read_only_fields = fields

    def to_representation(self, run: SetRun) -> dict[str, Any]:
        progress: Progress = self.context["progress"][run.pk]
        return {
            "id": str(run.pk),
            "status": progress.status.value,
            "message": progress.message,
            "owner": run.owner.username,
            "template": run.template_id and str(run.template_id),
            "album": run.album_id and str(run.album_id),
            "theme": run.theme,
            "total": run.total,
            "queued": progress.count(JobStatus.QUEUED) + progress.count(JobStatus.PENDING),
            "running": progress.count(JobStatus.RUNNING),
            "completed": progress.count(JobStatus.COMPLETED),
            "failed": progress.count(JobStatus.FAILED),
            "cancelled": progress.count(JobStatus.CANCELLED),
            "progress": int(progress.share * 100),
            "eta_seconds": progress.eta_seconds,
            "created_at": _as_time(run.created_at),
            "finished_at": _as_time(progress.finished_at),
            **self._links(run),
        }

    def _links(self, run: SetRun) -> Mapping[str, str]:
        path = f"/api/set-runs/{run.pk}"
        return {"items_url": f"{path}/items", "contact_sheet_url": f"{path}/contact-sheet"}


class SetRunDetailSerializer(SetRunSerializer):
    """A set run with its pictures in the order of their rows, as many as stand in one answer."""

    items = SetItemSerializer(many=True, read_only=True, help_text="The first 1000; `items_url` has all.")

    class Meta(SetRunSerializer.Meta):
        fields = [*SetRunSerializer.Meta.fields, "items"]
        read_only_fields = fields

    def to_representation(self, run: SetRun) -> dict[str, Any]:
        return {**super().to_representation(run), "items": self.context["items"]}


class SheetQuerySerializer(StrictSerializer):
    page = serializers.IntegerField(min_value=1, required=False, default=1, help_text="Which sheet.")
    type = serializers.ChoiceField(list(FORMATS), required=False, default="png")


class ThemeSerializer(StrictSerializer):
    theme = serializers.CharField()


def _as_time(moment: Any) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
