import uuid
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from albums import services
from albums.api.album_serializers import (
    AddedSerializer,
    AlbumChangesSerializer,
    AlbumImagesSerializer,
    AlbumInputSerializer,
    AlbumSerializer,
    CloneSerializer,
    CoverSerializer,
    MergeSerializer,
    MoveImagesSerializer,
    RemovedSerializer,
)
from albums.api.archives import respond_with_archive
from albums.api.files import AnswersFiles
from albums.api.filters import AlbumFilter
from albums.api.previews import Previews
from albums.models import Album, AlbumQuerySet
from imagehub.api.permissions import StaffOrReadOnly
from imagehub.api.schema import problem


class AlbumViewSet(
    AnswersFiles, mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[Album]
):
    """Look at albums, and for staff, keep them. Whoever may not see one is told that it does not exist."""

    permission_classes = [StaffOrReadOnly]
    serializer_class = AlbumSerializer
    filterset_class = AlbumFilter
    keyset_ordering = ("-created_at", "-id")
    orderings = {
        "-created_at": ("-created_at", "-id"),
        "created_at": ("created_at", "id"),
        "name": ("name", "id"),
        "-name": ("-name", "-id"),
    }
    lookup_value_converter = "uuid"
    file_actions = frozenset({"archive"})

    def get_queryset(self) -> AlbumQuerySet:
        return Album.objects.visible_to(self.request.user)

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        columns = AlbumSerializer.columns_for(request.user)
        # Rows without methods: fifty instances would take longer than all that is done with them.
        albums = self.get_queryset().values_list(*columns, named=True)
        if request.query_params:  # to build the form of the filters takes as long as to read the albums
            albums = self.filter_queryset(albums)
        page = self.paginate_queryset(albums)
        return self.get_paginated_response(self._present(page))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._respond(self.get_object())

    @extend_schema(request=AlbumInputSerializer, responses={201: AlbumSerializer})
    def create(self, request: Request) -> Response:
        """Make an album without images."""
        data = self._read(AlbumInputSerializer)
        with transaction.atomic():
            album = services.create_album(Album(owner=request.user, **data))
        return self._respond_created(album)

    @extend_schema(request=AlbumChangesSerializer, responses={200: AlbumSerializer, **problem(409)})
    def partial_update(self, request: Request, pk: uuid.UUID) -> Response:
        """Change an album. Fields that are left out stay as they are."""
        album = self.get_object()
        data = self._read(AlbumChangesSerializer, partial=True)
        with transaction.atomic():
            if "cover" in data:
                services.set_cover(album, data.pop("cover"), pointer="/cover")
            services.update_album(album, **data)
        return self._respond(album)

    @extend_schema(responses={204: None, **problem(409)})
    def destroy(self, request: Request, pk: uuid.UUID) -> Response:
        """Delete an album. Its images stay."""
        services.delete_album(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=AlbumImagesSerializer, responses={200: AddedSerializer, **problem(409)})
    @action(detail=True, methods=["post"])
    def images(self, request: Request, pk: uuid.UUID) -> Response:
        """Append images to an album, in the order given. What is there already stays where it is."""
        album = self.get_object()
        images = self._read(AlbumImagesSerializer)["image_ids"]
        added = services.add_images_to_album(album, images)
        return Response({"added": added, "already": len(set(images)) - added})

    @extend_schema(request=AlbumImagesSerializer, responses={200: RemovedSerializer, **problem(409)})
    @images.mapping.delete
    def remove_images(self, request: Request, pk: uuid.UUID) -> Response:
        """Take images out of an album; the body is that of POST. What is not there is passed over."""
        album = self.get_object()
        images = self._read(AlbumImagesSerializer)["image_ids"]
        return Response({"removed": services.remove_images_from_album(album, images)})

    @extend_schema(request=MoveImagesSerializer, responses={204: None, **problem(409)})
    @images.mapping.patch
    def move_images(self, request: Request, pk: uuid.UUID) -> Response:
        """Put images of an album, in the order given, in front of another one, or at the end."""
        album = self.get_object()
        data = self._read(MoveImagesSerializer)
        services.move_images(album, data["image_ids"], before=data["before"])
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=CoverSerializer, responses={200: AlbumSerializer, **problem(409)})
    @action(detail=True, methods=["post"])
    def cover(self, request: Request, pk: uuid.UUID) -> Response:
        """Choose the image that stands for an album."""
        album = self.get_object()
        return self._respond(services.set_cover(album, self._read(CoverSerializer)["image"]))

    @extend_schema(request=MergeSerializer, responses={200: AlbumSerializer, **problem(409)})
    @action(detail=True, methods=["post"])
    def merge(self, request: Request, pk: uuid.UUID) -> Response:
        """Move the images of other albums behind those of this one, each once, and delete the others."""
        album = self.get_object()
        services.merge_albums(album, self._read(MergeSerializer)["albums"])
        return self._respond(self.get_object())

    @extend_schema(request=CloneSerializer, responses={201: AlbumSerializer})
    @action(detail=True, methods=["post"])
    def clone(self, request: Request, pk: uuid.UUID) -> Response:
        """Make a new private album with the description and the set template of this one, without its images."""
        album = self.get_object()
        name = self._read(CloneSerializer).get("name", "")
        with transaction.atomic():
            copy = services.clone_album(album, name=name, owner=request.user)
        return self._respond_created(copy)

    @extend_schema(responses={(200, "application/zip"): OpenApiTypes.BINARY, **problem(429)})
    @action(detail=True)
    def archive(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        """Download an album as a ZIP file: those of its images that the caller may see, in its order.

        Whoever is not staff is given no flagged images. Where a file is missing or damaged, a text of the same length
        stands in its place.
        """
        return respond_with_archive(request, get_object_or_404(self.get_queryset(), pk=pk))

    def _read(self, kind: type[BaseSerializer[Any]], *, partial: bool = False) -> dict[str, Any]:
        serializer = kind(data=self.request.data, partial=partial)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def _present(self, albums: Sequence[Any]) -> Sequence[dict[str, Any]]:
        previews = Previews(albums, user=self.request.user)
        return AlbumSerializer(albums, many=True, context={"previews": previews}).data

    def _respond(self, album: Album, **options: Any) -> Response:
        return Response(self._present([album])[0], **options)

    def _respond_created(self, album: Album) -> Response:
        return self._respond(
            album,
            status=status.HTTP_201_CREATED,
            headers={"Location": reverse("album-detail", args=[album.pk])},
        )
