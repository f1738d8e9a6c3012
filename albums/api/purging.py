"""What is deleted of the trash."""

from http import HTTPStatus

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from albums.services.purging import PURGE
from imagehub.operations.api.purge_views import (
    PurgeRecordView,
    PurgeRequestSerializer,
    PurgeResultSerializer,
    PurgeSerializer,
    PurgeView,
)


class TrashPurgeResultSerializer(PurgeResultSerializer):
    images = serializers.IntegerField(required=False)
    kept = serializers.IntegerField(
        required=False, help_text="Images that stay, because something needs them."
    )


class TrashPurgeSerializer(PurgeSerializer):
    """One emptying of the trash, and what came of it."""

    result = TrashPurgeResultSerializer(read_only=True)


@extend_schema_view(
    post=extend_schema(
        operation_id="images_trash_purge",
        request=PurgeRequestSerializer,
        responses={HTTPStatus.ACCEPTED: TrashPurgeSerializer},
        description="Ask for images to be deleted for good that were put into the trash some time ago.\n\n"
        "The answer is a record, at which `Location` tells how far it is and what came of it.",
    )
)
class TrashPurgeView(PurgeView):
    """Emptying the trash of what has lain there for some time."""

    kind = PURGE
    serializer_class = TrashPurgeSerializer
    record_route = "trash-purge"


@extend_schema_view(
    get=extend_schema(
        operation_id="images_trash_purge_record",
        responses=TrashPurgeSerializer,
        description="Return how far a purge is, and what came of it.",
    )
)
class TrashPurgeRecordView(PurgeRecordView):
    """One emptying of the trash."""

    kind = PURGE
    serializer_class = TrashPurgeSerializer
