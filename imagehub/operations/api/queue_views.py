from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from imagehub.api.serializers import StrictCharField, StrictSerializer
from imagehub.errors import Invalid
from imagehub.jobs import pauses
from imagehub.jobs.registry import JobKind, get_kind, kinds
from imagehub.operations.queues import QueueStatus, queue_status


class PauseSerializer(serializers.Serializer):
    reason = serializers.CharField()
    by = serializers.CharField(source="paused_by.username", default=None, allow_null=True)
    at = serializers.DateTimeField(source="paused_at")


class QueueStatusSerializer(serializers.Serializer):
    """How the queue of one kind of job stands."""

    kind = serializers.CharField()
    queued = serializers.IntegerField()
    running = serializers.IntegerField()
    paused = PauseSerializer(source="pause", allow_null=True, help_text="Null: jobs are taken.")
    workers = serializers.IntegerField(help_text="Clusters that were seen lately.")
    oldest_age_seconds = serializers.FloatField(allow_null=True, help_text="Of the job that waits longest.")
    rate_per_minute = serializers.FloatField(help_text="Jobs completed, over the last ten minutes.")
    eta_seconds = serializers.FloatField(allow_null=True, help_text="Until all of it is done.")


class QueuesSerializer(serializers.Serializer):
    queues = QueueStatusSerializer(many=True)


class ResumeBodySerializer(StrictSerializer):
    kind = StrictCharField(required=False, help_text="Left out: all kinds.")

    def kinds(self) -> list[JobKind]:
        """Return the kinds that are meant.

        Raises:
            Invalid: there is no such kind.
        """
        name = self.validated_data.get("kind")
        if name is None:
            return list(kinds())
        try:
            return [get_kind(name)]
        except KeyError as error:
            known = ", ".join(kind.name for kind in kinds())
            raise Invalid(f"It is one of: {known}.", pointer="/kind", code="invalid_choice") from error


class PauseBodySerializer(ResumeBodySerializer):
    reason = StrictCharField(required=False, allow_blank=True, max_length=200, default="")


class QueueView(APIView):
    """How the queues stand."""

    @extend_schema(responses=QueuesSerializer)
    def get(self, request: Request) -> Response:
        return _answer(queue_status(kinds()))


class QueuePauseView(APIView):
    """Let no worker take a new job. What runs goes on to its end."""

    @extend_schema(request=PauseBodySerializer, responses=QueuesSerializer)
    def post(self, request: Request) -> Response:
        body = PauseBodySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        meant = body.kinds()
        pauses.pause(meant, by=request.user, reason=body.validated_data["reason"])
        return _answer(queue_status(meant))


class QueueResumeView(APIView):
    """Let workers take jobs again."""

    @extend_schema(request=ResumeBodySerializer, responses=QueuesSerializer)
    def post(self, request: Request) -> Response:
        body = ResumeBodySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        meant = body.kinds()
        pauses.resume(meant)
        return _answer(queue_status(meant))


def _answer(statuses: list[QueueStatus]) -> Response:
    data: dict[str, Any] = QueuesSerializer({"queues": statuses}).data
    return Response(data)
