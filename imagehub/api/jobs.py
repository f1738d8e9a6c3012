"""How every kind of job looks in the API."""

import uuid
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from imagehub.jobs import presence
from imagehub.jobs.models import Job, JobStatus
from imagehub.jobs.registry import JobKind


class JobErrorSerializer(serializers.Serializer):
    code = serializers.CharField()
    detail = serializers.CharField()


class JobSerializer(serializers.ModelSerializer):
    """The fields all jobs have. A kind's serializer adds its own to ``Meta.fields``.

    The context holds ``job_kind``; queue positions and worker presence are looked up once for a whole page.
    """

    kind = serializers.SerializerMethodField()
    queue_position = serializers.SerializerMethodField(
        help_text="1 is the next to run, 0 runs, null is not in the queue."
    )
    possible = serializers.SerializerMethodField(help_text="False when nobody is there to do it.")
    reason = serializers.SerializerMethodField(help_text="Why it is not possible now.")
    error = serializers.SerializerMethodField()
    owner = serializers.CharField(source="owner.username", read_only=True)
    duration_seconds = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = [
            "id", "kind", "status", "priority", "attempt", "progress", "step", "total_steps", "message",
            "eta_seconds", "queue_position", "possible", "reason", "error", "owner", "created_at", "queued_at",
            "started_at", "finished_at", "duration_seconds",
        ]  # fmt: skip
        read_only_fields = fields

    def get_kind(self, job: Job) -> str:
        return self._kind.name

    def get_queue_position(self, job: Job) -> int | None:
        if job.status == JobStatus.RUNNING:
            return 0
        return self._positions.get(job.pk) if job.status == JobStatus.QUEUED else None

    def get_possible(self, job: Job) -> bool:
        return job.is_finished or self._has_worker

    def get_reason(self, job: Job) -> str | None:
        return None if self.get_possible(job) else f"No live worker in the cluster “{self._kind.cluster}”."

    @extend_schema_field(JobErrorSerializer(allow_null=True))
    def get_error(self, job: Job) -> dict[str, str] | None:
        return {"code": job.error_code, "detail": job.error_detail} if job.error_code else None

    def get_duration_seconds(self, job: Job) -> float | None:
        if job.started_at is None or job.finished_at is None:
            return None
        return round((job.finished_at - job.started_at).total_seconds(), 3)

    @property
    def _kind(self) -> JobKind:
        return self.context["job_kind"]

    @property
    def _positions(self) -> dict[uuid.UUID, int]:
        return self._once("queue_positions", self._kind.model._default_manager.queue_positions)

    @property
    def _has_worker(self) -> bool:
        return self._once("has_worker", presence.live(self._kind.cluster).exists)

    def _once(self, name: str, look_up: Any) -> Any:
        """Look something up for the first job of a page, and remember it for the others."""
        if name not in self.context:
            self.context[name] = look_up()
        return self.context[name]
