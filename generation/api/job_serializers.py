"""Bodies of requests that act on jobs which are there."""

from typing import Any

from django.contrib.auth.models import User
from rest_framework import serializers

from generation.models import GenerationJob, SetRun
from generation.services import GREATEST_PRIORITY, LEAST_PRIORITY
from imagehub.api.serializers import (
    StrictChoiceField,
    StrictIntegerField,
    StrictPrimaryKeyRelatedField,
    StrictSerializer,
    StrictSlugRelatedField,
    StrictUUIDField,
)
from imagehub.jobs.models import JobStatus
from training.models import BaseModel

MOST_IDS = 1000


class PrioritySerializer(StrictSerializer):
    """What may be changed of a job."""

    priority = StrictIntegerField(
        min_value=LEAST_PRIORITY, max_value=GREATEST_PRIORITY, help_text="Higher goes first."
    )


class CancelSerializer(StrictSerializer):
    """Which jobs to cancel: those to which all that is said applies."""

    ids = serializers.ListField(
        child=StrictUUIDField(), required=False, allow_empty=False, max_length=MOST_IDS
    )
    set_run = StrictPrimaryKeyRelatedField(queryset=SetRun.objects.all(), required=False)
    status = StrictChoiceField(choices=[(value, value) for value in JobStatus.ACTIVE], required=False)
    base_model = StrictSlugRelatedField(slug_field="name", queryset=BaseModel.objects.all(), required=False)
    owner = StrictSlugRelatedField(slug_field="username", queryset=User.objects.all(), required=False)

    def validate_ids(self, ids: list[Any]) -> list[Any]:
        known = set(GenerationJob.objects.filter(pk__in=ids).values_list("pk", flat=True))
        unknown = {place: ["There is no such job."] for place, pk in enumerate(ids) if pk not in known}
        if unknown:
            raise serializers.ValidationError(unknown, code="does_not_exist")
        return ids

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError("Say which jobs to cancel.", code="required")
        return attrs


class CancelledSerializer(serializers.Serializer):
    cancelled = serializers.IntegerField(help_text="So many waited, and have ended.")
    stopping = serializers.IntegerField(help_text="So many run, and were asked to stop.")
