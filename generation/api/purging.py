"""What is deleted of old jobs."""

from http import HTTPStatus

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from generation.services.purging import PURGE
from imagehub.operations.api.purge_views import (
    PurgeRecordView,
    PurgeRequestSerializer,
    PurgeResultSerializer,
    PurgeSerializer,
    PurgeView,
)


class GenerationPurgeResultSerializer(PurgeResultSerializer):
    jobs = serializers.IntegerField(required=False, help_text="Jobs of which no picture is left.")
    set_runs = serializers.IntegerField(required=False, help_text="Set runs that went with all their jobs.")
    slimmed = serializers.IntegerField(
        required=False, help_text="Jobs that stay, without their traceback and idempotency key."
    )
    kept = serializers.IntegerField(
        required=False,
        help_text="Jobs that stay, because a picture comes from them or a set run counts them.",
    )


class GenerationPurgeSerializer(PurgeSerializer):
    """One clearing out of generation jobs, and what came of it."""

    result = GenerationPurgeResultSerializer(read_only=True)


@extend_schema_view(
    post=extend_schema(
        operation_id="jobs_artifacts_purge",
        request=PurgeRequestSerializer,
        responses={HTTPStatus.ACCEPTED: GenerationPurgeSerializer},
        description="Ask for old jobs to be deleted of which no picture is left.\n\n"
        "The answer is a record, at which `Location` tells how far it is and what came of it.",
    )
)
class GenerationPurgeView(PurgeView):
    """Clearing out jobs that ended some time ago."""

    kind = PURGE
    serializer_class = GenerationPurgeSerializer
    record_route = "jobs-purge"


@extend_schema_view(
    get=extend_schema(
        operation_id="jobs_artifacts_purge_record",
        responses=GenerationPurgeSerializer,
        description="Return how far a purge is, and what came of it.",
    )
)
class GenerationPurgeRecordView(PurgeRecordView):
    """One clearing out of jobs."""

    kind = PURGE
    serializer_class = GenerationPurgeSerializer
