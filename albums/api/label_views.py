import uuid

import django_filters
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from albums import services
from albums.api.label_serializers import (
    ChangedLabelSerializer,
    LabelAnalyticsSerializer,
    LabelRevisionSerializer,
    LabelSerializer,
    NewLabelSerializer,
    StaffLabelSerializer,
)
from albums.label_analytics import analyse_labels
from albums.models import Album, Image, Label, LabelKind, LabelOrigin, LabelRevision, may_see_everything
from imagehub.api.permissions import StaffOnly, StaffOrReadOnly
from imagehub.api.schema import problem


class LabelFilter(django_filters.FilterSet):
    """Which labels of an image to list."""

    kind = django_filters.ChoiceFilter(choices=LabelKind)
    origin = django_filters.ChoiceFilter(choices=LabelOrigin)

    class Meta:
        model = Label
        fields: tuple[str, ...] = ()


class OfAnImage:
    """What is kept about the image that the path names. Whoever may not see it is told that it does not exist."""

    request: Request
    kwargs: dict[str, uuid.UUID]

    def get_image(self) -> Image:
        """Return the image.

        Raises:
            Http404: there is none, or the caller may not see it.
        """
        return get_object_or_404(Image.objects.visible_to(self.request.user), pk=self.kwargs["image_id"])


@extend_schema_view(
    list=extend_schema(responses=StaffLabelSerializer(many=True)),
    retrieve=extend_schema(responses=StaffLabelSerializer),
)
class LabelViewSet(
    OfAnImage, mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[Label]
):
    """Captions and tags of an image, and who says so."""

    permission_classes = [StaffOrReadOnly]
    queryset = Label.objects.none()
    filterset_class = LabelFilter
    keyset_ordering = ("kind", "created_at", "id")

    def get_queryset(self) -> QuerySet[Label]:
        if "image_id" not in self.kwargs:  # the schema asks for it, too
            return super().get_queryset()
        labels = Label.objects.filter(image=self.get_image())
        return labels.select_related("created_by") if may_see_everything(self.request.user) else labels

    def get_serializer_class(self) -> type[BaseSerializer[Label]]:
        return StaffLabelSerializer if may_see_everything(self.request.user) else LabelSerializer

    @extend_schema(
        request=NewLabelSerializer,
        responses={201: StaffLabelSerializer, 200: StaffLabelSerializer, **problem(409)},
    )
    def create(self, request: Request, image_id: uuid.UUID) -> Response:
        """Say something about an image.

        It has one caption by people, one of each model, and each tag once: what is there already is changed (200),
        and what it said becomes history. What people said stays as it is when a model says something else, unless
        `replace_human` is true.
        """
        image = self.get_image()
        body = NewLabelSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        label = services.put_label(image, user=request.user, **body.validated_data)
        return Response(
            StaffLabelSerializer(label).data,
            status=status.HTTP_201_CREATED if label.is_new else status.HTTP_200_OK,
            headers={"Location": reverse("image-label", args=[image.pk, label.pk])},
        )

    @extend_schema(request=ChangedLabelSerializer, responses={200: StaffLabelSerializer, **problem(409)})
    def partial_update(self, request: Request, image_id: uuid.UUID, pk: uuid.UUID) -> Response:
        """Say something else. Whoever said it before, from then on it is a person who says so."""
        label = self.get_object()
        body = ChangedLabelSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        label = services.change_label(label, user=request.user, **body.validated_data)
        return Response(StaffLabelSerializer(label).data)

    @extend_schema(responses={204: None, **problem(409)})
    def destroy(self, request: Request, image_id: uuid.UUID, pk: uuid.UUID) -> Response:
        """Remove a label. The history keeps what it said."""
        services.remove_label(self.get_object(), user=request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)


class LabelHistoryViewSet(OfAnImage, mixins.ListModelMixin, viewsets.GenericViewSet[LabelRevision]):
    """What the labels of an image said before, the latest change first."""

    permission_classes = [StaffOnly]
    queryset = LabelRevision.objects.none()
    serializer_class = LabelRevisionSerializer
    keyset_ordering = ("-changed_at", "-id")

    def get_queryset(self) -> QuerySet[LabelRevision]:
        if "image_id" not in self.kwargs:  # the schema asks for it, too
            return super().get_queryset()
        return LabelRevision.objects.filter(image=self.get_image()).select_related("changed_by")


class AlbumLabelAnalyticsView(APIView):
    """How well an album is labelled."""

    permission_classes = [StaffOnly]

    @extend_schema(operation_id="albums_labels_analytics", responses=LabelAnalyticsSerializer)
    def get(self, request: Request, album_id: uuid.UUID) -> Response:
        """Count the captions and tags of an album's images, trashed ones left out."""
        album = get_object_or_404(Album.objects.visible_to(request.user), pk=album_id)
        return Response(LabelAnalyticsSerializer(analyse_labels(album)).data)
