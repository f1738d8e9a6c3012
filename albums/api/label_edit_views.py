from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from albums import services
from albums.api.label_edit_serializers import (
    DoneLabelEditSerializer,
    LabelEditPreviewSerializer,
    LabelEditSerializer,
    NewLabelEditSerializer,
    UndoneSerializer,
)
from albums.models import LabelEdit
from imagehub.api.permissions import StaffOnly
from imagehub.api.schema import problem


class LabelEditViewSet(mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[LabelEdit]):
    """Change the captions or tags of many images at once, and take that back."""

    permission_classes = [StaffOnly]
    queryset = LabelEdit.objects.select_related("owner", "undone_by").defer(
        "made"
    )  # up to 10,000 ids in a row
    serializer_class = LabelEditSerializer
    keyset_ordering = ("-created_at", "-id")
    lookup_value_converter = "uuid"

    @extend_schema(
        request=NewLabelEditSerializer,
        responses={201: DoneLabelEditSerializer, 200: LabelEditPreviewSerializer, **problem(422)},
    )
    def create(self, request: Request) -> Response:
        """Change the captions or tags of the images of an album, or of images that are named.

        `prefix`, `suffix` and `replace` change the caption that training would use; it is a person's from then on.
        With `preview` nothing is changed, and the answer (200) tells what would be.
        """
        body = NewLabelEditSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        change = services.LabelChange(data["action"], data["text"], data["replacement"])
        if data["preview"]:
            preview = services.preview_edit(_image_ids(data), change)
            return Response(LabelEditPreviewSerializer(preview).data)
        edit, done = services.edit_labels(_image_ids(data), change, user=request.user)
        return Response(
            DoneLabelEditSerializer(edit, context={"done": done}).data,
            status=status.HTTP_201_CREATED,
            headers={"Location": reverse("label-edit-detail", args=[edit.pk])},
        )

    @extend_schema(request=None, responses={200: UndoneSerializer, **problem(409)})
    @action(detail=True, methods=["post"])
    def undo(self, request: Request, pk: str) -> Response:
        """Let the labels say what they said before. What was changed since stays as it is."""
        return Response(UndoneSerializer(services.undo_edit(self.get_object(), user=request.user)).data)


def _image_ids(data: dict[str, Any]) -> Iterable[UUID]:
    return data["album"].images.values_list("pk", flat=True) if "album" in data else data["image_ids"]
