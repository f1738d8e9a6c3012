import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from albums.api.files import RangeNotSatisfiable, ServedFile, file_name
from albums.api.filters import AlbumFilter, ImageFilter
from albums.api.previews import attach_previews
from albums.api.serializers import (
    AlbumSerializer,
    ImageSerializer,
    StaffImageSerializer,
    ThumbnailQuerySerializer,
)
from albums.models import Album, AlbumQuerySet, Image, ImageQuerySet, may_see_everything
from albums.services import ImageFileMissing, image_path
from albums.thumbnails import default_size, thumbnail_path
from imagehub.api.permissions import StaffOrReadOnly

logger = logging.getLogger(__name__)

A_FILE = {(200, "image/*"): OpenApiTypes.BINARY}


@extend_schema_view(
    list=extend_schema(responses=StaffImageSerializer(many=True)),
    retrieve=extend_schema(responses=StaffImageSerializer),
)
class ImageViewSet(mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[Image]):
    """Look at images. Whoever may not see one is told that it does not exist."""

    permission_classes = [StaffOrReadOnly]
    filterset_class = ImageFilter
    lookup_value_converter = "uuid"

    @property
    def keyset_ordering(self) -> Sequence[str]:
        """Newest first; an album has an order of its own."""
        in_album = self.request.query_params.get("album", "").strip()
        return ("position", "id") if in_album else ("-created_at", "-id")

    def get_queryset(self) -> ImageQuerySet:
        images = Image.objects.visible_to(self.request.user)
        return images.select_related("owner") if may_see_everything(self.request.user) else images

    def get_serializer_class(self) -> type[BaseSerializer[Image]]:
        return StaffImageSerializer if may_see_everything(self.request.user) else ImageSerializer

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:  # noqa: FBT001, FBT002
        # `Accept: image/png` is what a file is asked for with; errors are JSON all the same.
        return super().perform_content_negotiation(
            request, force=force or self.action in {"file", "thumbnail"}
        )

    @extend_schema(responses=A_FILE)
    @action(detail=True)
    def file(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        """Download an image's file. Supports ``ETag`` and one ``Range``."""
        image = self.get_object()
        return self._respond(
            ServedFile(
                path=image_path(image),
                etag=f'"{image.sha256}"',
                content_type=f"image/{image.format}",
                name=file_name(image.name, Path(image.storage_name).suffix),
                visibility=image.visibility,
            )
        )

    @extend_schema(parameters=[ThumbnailQuerySerializer], responses=A_FILE)
    @action(detail=True)
    def thumbnail(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        """Download a small WebP version of an image, made when it is first asked for."""
        image = self.get_object()
        query = ThumbnailQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        size = query.validated_data.get("size", default_size())
        return self._respond(
            ServedFile(
                path=thumbnail_path(image, size),
                etag=f'"{image.sha256}-{size}"',
                content_type="image/webp",
                name=file_name(image.name, ".webp"),
                visibility=image.visibility,
            )
        )

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, ImageFileMissing | FileNotFoundError):
            logger.error("The file of the image at %s is missing: see check_storage", self.request.path)
            exc = NotFound()
        return super().handle_exception(exc)

    def _respond(self, file: ServedFile) -> HttpResponseBase:
        try:
            return file.respond(self.request)
        except RangeNotSatisfiable as error:
            self.headers["Content-Range"] = f"bytes */{error.size}"
            raise


class AlbumViewSet(mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[Album]):
    """Look at albums. Whoever may not see one is told that it does not exist."""

    permission_classes = [StaffOrReadOnly]
    serializer_class = AlbumSerializer
    filterset_class = AlbumFilter
    keyset_ordering = ("-created_at", "-id")
    lookup_value_converter = "uuid"

    def get_queryset(self) -> AlbumQuerySet:
        user = self.request.user
        return Album.objects.visible_to(user).with_image_count(user).with_preview_ids(user)

    def paginate_queryset(self, queryset: QuerySet[Album]) -> list[Album]:
        page = super().paginate_queryset(queryset)
        attach_previews(page, user=self.request.user)
        return page

    def get_object(self) -> Album:
        album = super().get_object()
        attach_previews([album], user=self.request.user)
        return album
