import uuid
from collections.abc import Sequence

from django.db import transaction
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from albums.api.file_views import ImageFilesMixin
from albums.api.filters import ImageFilter
from albums.api.image_serializers import (
    ImageChangeSerializer,
    ImageSerializer,
    StaffImageSerializer,
)
from albums.models import Image, ImageQuerySet, may_see_everything
from albums.services import NotInTrash, purge_images, restore_images, trash_images, update_image
from imagehub.api.permissions import StaffOrReadOnly
from imagehub.api.schema import problem


@extend_schema_view(
    list=extend_schema(responses=StaffImageSerializer(many=True)),
    retrieve=extend_schema(responses=StaffImageSerializer),
)
class ImageViewSet(
    ImageFilesMixin, mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[Image]
):
    """Look at images, and change them. Whoever may not see one is told that it does not exist."""

    permission_classes = [StaffOrReadOnly]
    filterset_class = ImageFilter
    lookup_value_converter = "uuid"
    orderings = {
        "-created_at": ("-created_at", "-id"),
        "created_at": ("created_at", "id"),
        "-rating": ("-rating", "-created_at", "-id"),
        "rating": ("rating", "created_at", "id"),
        "-size_bytes": ("-size_bytes", "-id"),
        "size_bytes": ("size_bytes", "id"),
        "name": ("name", "id"),
        "-name": ("-name", "-id"),
    }
    unique_keys = frozenset({"placed_id", "arrival"})

    @property
    def keyset_ordering(self) -> Sequence[str]:
        """Newest first; an album has an order of its own, and so has the trash; a search the one that costs least."""
        if self._asks_for("album"):
            return ("position", "placed_id")
        if self._asks_for("q"):
            return ("-arrival",)
        return ("-deleted_at", "-id") if self._shows_trash else ("-created_at", "-id")

    def get_queryset(self) -> ImageQuerySet:
        user = self.request.user
        if self.detail:
            images = Image.objects.reachable_by(user)
        else:
            images = Image.objects.in_trash() if self._shows_trash else Image.objects.visible_to(user)
        return images.select_related("owner") if may_see_everything(user) else images

    def get_serializer_class(self) -> type[BaseSerializer[Image]]:
        return StaffImageSerializer if may_see_everything(self.request.user) else ImageSerializer

    @extend_schema(request=ImageChangeSerializer, responses={200: StaffImageSerializer} | problem(409))
    def partial_update(self, request: Request, pk: uuid.UUID) -> Response:
        """Change what is said about an image. What is left out stays as it is."""
        image = self.get_object()
        body = ImageChangeSerializer(data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        return Response(StaffImageSerializer(update_image(image, **body.validated_data)).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: uuid.UUID) -> Response:
        """Put an image into the trash. Nobody but staff meets it there, and staff can bring it back."""
        trash_images([self.get_object().pk])
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=None, responses={200: StaffImageSerializer} | problem(409))
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, pk: uuid.UUID) -> Response:
        """Take an image out of the trash, back to the places in albums that it had."""
        image = self.get_object()
        with transaction.atomic():  # what is refused is not recorded either
            if not restore_images([image.pk]):
                raise NotInTrash("The image is not in the trash.")
        return Response(StaffImageSerializer(self.get_object()).data)

    @extend_schema(request=None, responses={204: None} | problem(409))
    @action(detail=True, methods=["post"])
    def purge(self, request: Request, pk: uuid.UUID) -> Response:
        """Delete an image that is in the trash for good; its file too, unless another image has the same bytes."""
        purge_images([self.get_object().pk])
        return Response(status=status.HTTP_204_NO_CONTENT)

    @property
    def _shows_trash(self) -> bool:
        return self.request.query_params.get("deleted") == "true" and may_see_everything(self.request.user)

    def _asks_for(self, name: str) -> bool:
        return bool(self.request.query_params.get(name, "").strip())
