"""Asking for purges, and what came of them: what the apps put below their own paths."""

import uuid
from typing import Any, cast

from django.contrib.auth.models import User
from django.urls import reverse
from rest_framework import serializers, status
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from imagehub.accounts.models import Scope
from imagehub.api.permissions import StaffOnly
from imagehub.api.serializers import StrictBooleanField, StrictIntegerField, StrictSerializer
from imagehub.operations import purges
from imagehub.operations.models import Purge

STATES, ORIGINS = Purge.State.choices, Purge.Origin.choices


class PurgeRequestSerializer(StrictSerializer):
    """What to delete."""

    older_than_days = StrictIntegerField(
        required=False,
        min_value=0,
        max_value=purges.MOST_DAYS,
        help_text="Of what ended so long ago. Default: what is configured; needed where that is never.",
    )
    limit = StrictIntegerField(
        required=False,
        min_value=1,
        max_value=purges.GREATEST_LIMIT,
        help_text="Of so many at most, the oldest first. Default: all.",
    )
    dry_run = StrictBooleanField(default=False, help_text="Only say what would be deleted.")


class PurgeResultSerializer(serializers.Serializer):
    """What every purge tells. A kind adds its counts."""

    bytes = serializers.IntegerField(required=False)
    failed = serializers.IntegerField(
        required=False, help_text="Of which not all could be deleted. The next purge tries again."
    )
    errors = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="What was in the way, of the first of these."
    )
    problem = serializers.CharField(required=False)
    note = serializers.CharField(required=False, help_text="What else is to be known of it.")


class PurgeSerializer(serializers.ModelSerializer):
    """One clearing out, and what came of it. A kind says what its result is."""

    dry_run = serializers.BooleanField(source="is_dry_run", read_only=True)
    result = PurgeResultSerializer(read_only=True)

    class Meta:
        model = Purge
        fields = [
            "id", "kind", "origin", "state", "older_than_days", "limit", "dry_run", "result", "created_at",
            "finished_at",
        ]  # fmt: skip
        read_only_fields = fields

    def to_representation(self, instance: Purge) -> dict[str, Any]:
        return super().to_representation(instance) | {"result": instance.result}


class PurgeView(APIView):
    """Clearing out what is old of one kind."""

    permission_classes = [StaffOnly]
    required_scope = Scope.ADMIN
    kind = ""
    serializer_class: type[PurgeSerializer] = PurgeSerializer
    record_route = ""
    """The name of the path of a record."""

    def post(self, request: Request) -> Response:
        body = PurgeRequestSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        purge = purges.request_purge(
            self.kind,
            user=cast(User, request.user),
            older_than_days=body.validated_data.get("older_than_days"),
            limit=body.validated_data.get("limit"),
            is_dry_run=body.validated_data["dry_run"],
        )
        return Response(
            self.serializer_class(purge).data,
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": reverse(self.record_route, args=[purge.pk])},
        )


class PurgeRecordView(APIView):
    """One clearing out."""

    permission_classes = [StaffOnly]
    kind = ""
    serializer_class: type[PurgeSerializer] = PurgeSerializer

    def get(self, request: Request, pk: uuid.UUID) -> Response:
        purge = get_object_or_404(Purge, pk=pk, kind=self.kind)
        return Response(self.serializer_class(purge).data)
