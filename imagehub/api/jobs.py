"""How every kind of job looks in the API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from imagehub.jobs.models import Job
from imagehub.jobs.outlook import Outlook
from imagehub.jobs.registry import JobKind


class JobErrorSerializer(serializers.Serializer):
    code = serializers.CharField()
    detail = serializers.CharField()


class PreviewSerializer(serializers.Serializer):
    """How a picture in the making looks."""

    step = serializers.IntegerField()
    image = serializers.CharField(source="url", help_text="A small JPEG, as a `data:` address.")


class JobSerializer(serializers.ModelSerializer):
    """The fields all jobs have. A kind's serializer adds its own to ``Meta.fields``.

    The context holds ``job_kind`` and ``outlooks``, of all jobs of a page (see ``imagehub.jobs.outlook``), and may hold
    ``previews`` (see ``imagehub.jobs.live``).
    """

    kind = serializers.SerializerMethodField()
    eta_seconds = serializers.SerializerMethodField(
        help_text="Until it ends, as far as can be told; of a waiting job too."
    )
    queue_position = serializers.SerializerMethodField(
        help_text="1 is the next to run, 0 runs, null is not in the queue."
    )
    possible = serializers.SerializerMethodField(help_text="False when nobody can do it as things are.")
    reason = serializers.SerializerMethodField(help_text="Why it is not possible now.")
    error = serializers.SerializerMethodField()
    preview = serializers.SerializerMethodField(
        help_text="Of one job that runs, where its worker makes any; null in lists."
    )
    owner = serializers.CharField(source="owner.username", read_only=True)
    duration_seconds = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = [
            "id", "kind", "status", "priority", "attempt", "progress", "step", "total_steps", "message",
            "eta_seconds", "queue_position", "possible", "reason", "error", "owner", "created_at", "queued_at",
            "started_at", "finished_at", "duration_seconds", "preview",
        ]  # fmt: skip
        read_only_fields = fields

    def get_kind(self, job: Job) -> str:
        return self._kind.name

    def get_eta_seconds(self, job: Job) -> float | None:
        return job.eta_seconds if job.is_finished else self._outlook(job).eta_seconds

    def get_queue_position(self, job: Job) -> int | None:
        return self._outlook(job).position

    def get_possible(self, job: Job) -> bool:
        return self._outlook(job).is_possible

    def get_reason(self, job: Job) -> str | None:
        return self._outlook(job).reason

    @extend_schema_field(JobErrorSerializer(allow_null=True))
    def get_error(self, job: Job) -> dict[str, str] | None:
        return {"code": job.error_code, "detail": job.error_detail} if job.error_code else None

    @extend_schema_field(PreviewSerializer(allow_null=True))
    def get_preview(self, job: Job) -> dict[str, Any] | None:
        preview = self.context.get("previews", {}).get(job.pk)
        return PreviewSerializer(preview).data if preview else None

    def get_duration_seconds(self, job: Job) -> float | None:
        if job.started_at is None or job.finished_at is None:
            return None
        return round((job.finished_at - job.started_at).total_seconds(), 3)

    @property
    def _kind(self) -> JobKind:
        return self.context["job_kind"]

    def _outlook(self, job: Job) -> Outlook:
        return self.context["outlooks"][job.pk]
