"""What is deleted of old crawls."""

from http import HTTPStatus

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from imagehub.operations.api.purge_views import (
    PurgeRecordView,
    PurgeRequestSerializer,
    PurgeResultSerializer,
    PurgeSerializer,
    PurgeView,
)
from scraping.services.purging import PURGE


class ScrapingPurgeResultSerializer(PurgeResultSerializer):
    crawls = serializers.IntegerField(required=False, help_text="Of which nothing is left but their rows.")
    items = serializers.IntegerField(required=False, help_text="Addresses of pictures that led to no image.")
    pages = serializers.IntegerField(required=False, help_text="Addresses of pages.")
    strays = serializers.IntegerField(required=False, help_text="Folders that belong to no crawl: they stay.")
    expired = serializers.IntegerField(
        required=False, help_text="Of the items, those that waited for a decision."
    )
    kept = serializers.IntegerField(
        required=False, help_text="Crawls of which approved pictures are still to be taken in."
    )


class ScrapingPurgeSerializer(PurgeSerializer):
    """One clearing out of crawls, and what came of it."""

    result = ScrapingPurgeResultSerializer(read_only=True)


@extend_schema_view(
    post=extend_schema(
        operation_id="scraping_artifacts_purge",
        request=PurgeRequestSerializer,
        responses={HTTPStatus.ACCEPTED: ScrapingPurgeSerializer},
        description="Ask for the files of old crawls to be deleted, and for the addresses that led to no image.\n\n"
        "The answer is a record, at which `Location` tells how far it is and what came of it.",
    )
)
class ScrapingPurgeView(PurgeView):
    """Clearing out what is left of crawls that ended some time ago."""

    kind = PURGE
    serializer_class = ScrapingPurgeSerializer
    record_route = "scraping-purge"


@extend_schema_view(
    get=extend_schema(
        operation_id="scraping_artifacts_purge_record",
        responses=ScrapingPurgeSerializer,
        description="Return how far a purge is, and what came of it.",
    )
)
class ScrapingPurgeRecordView(PurgeRecordView):
    """One clearing out of crawls."""

    kind = PURGE
    serializer_class = ScrapingPurgeSerializer
