import logging
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from albums.api.files import AnswersFiles, RangeNotSatisfiable, ServedFile, file_name
from albums.api.image_serializers import ThumbnailQuerySerializer
from albums.models import Image
from albums.services import ImageFileMissing
from albums.thumbnails import default_size, thumbnail_of
from imagehub.api.schema import problem

logger = logging.getLogger(__name__)

A_FILE = {(200, "image/*"): OpenApiTypes.BINARY}
ELSEWHERE = {302: None}

if TYPE_CHECKING:
    Base = GenericViewSet[Image]
else:
    Base = object


class ImageFilesMixin(AnswersFiles, Base):
    """Give out the files of images. Part of the view set of images, which says who may see which."""

    file_actions = frozenset({"file", "thumbnail"})

    @extend_schema(responses=A_FILE | ELSEWHERE | problem(422))
    @action(detail=True)
    def file(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        """Download an image's file. Supports ``ETag`` and one ``Range``.

        Where files are kept in a bucket, the answer is a redirect to an address of the file that holds for a short while.
        """
        image = self.get_object()
        return self._respond(
            ServedFile(
                stored=image.storage_name,
                etag=f'"{image.sha256}"',
                content_type=f"image/{image.format}",
                name=file_name(image.name, Path(image.storage_name).suffix),
                visibility=image.visibility,
            )
        )

    @extend_schema(parameters=[ThumbnailQuerySerializer], responses=A_FILE | ELSEWHERE | problem(422))
    @action(detail=True)
    def thumbnail(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        """Download a small WebP version of an image, made soon after the image, or when it is asked for before that."""
        image = self.get_object()
        query = ThumbnailQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        size = query.validated_data.get("size", default_size())
        return self._respond(
            ServedFile(
                stored=thumbnail_of(image, size),
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
