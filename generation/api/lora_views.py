import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from albums.api.file_views import A_FILE, ELSEWHERE
from albums.api.files import AnswersFiles, ServedFile, file_name
from albums.api.image_serializers import ThumbnailQuerySerializer
from albums.api.quarantine import QuarantineParser, check_declared_length
from albums.models import Image, ImageQuerySet, may_see_everything
from albums.services import ImageFileMissing
from albums.services.uploads import IncomingFile, quarantine
from albums.thumbnails import default_size, thumbnail_of
from generation.api.lora_serializers import (
    AdapterChangesSerializer,
    AdapterSerializer,
    AdapterUploadSerializer,
    PreviewSerializer,
    StaffAdapterSerializer,
)
from generation.api.registry_filters import AdapterFilter
from imagehub.accounts import audit
from imagehub.accounts.models import Scope
from imagehub.api.permissions import StaffOrReadOnly
from imagehub.api.problems import ContentTooLarge
from imagehub.api.schema import problem
from imagehub.api.throttling import RateLimitedMixin
from imagehub.concurrency import hold_slot
from imagehub.config import get_config
from imagehub.config_schema import UploadsConfig
from training import services
from training.models import Adapter, AdapterQuerySet

SLOT_SECONDS = 3600
"""Longer than a client that never pauses for long can take for the largest file."""
FORM_BYTES = 1024 * 1024
"""What a form may have beside its file."""


@extend_schema_view(
    list=extend_schema(responses=StaffAdapterSerializer(many=True)),
    retrieve=extend_schema(responses=StaffAdapterSerializer),
)
class AdapterViewSet(
    AnswersFiles,
    RateLimitedMixin,
    mixins.RetrieveModelMixin,
    mixins.ListModelMixin,
    viewsets.GenericViewSet[Adapter],
):
    """LoRA adapters. The public is shown those that are enabled, and never where they lie or whose they are."""

    permission_classes = [StaffOrReadOnly]
    required_scope = Scope.TRAIN
    filterset_class = AdapterFilter
    keyset_ordering = ("-created_at", "-id")
    lookup_value_converter = "uuid"
    file_actions = frozenset({"preview"})
    file_field = "file"

    quarantine: Path
    limits: UploadsConfig

    @property
    def rate_limit(self) -> str:  # type: ignore[override]
        return "upload" if self._is_upload else ""

    @property
    def charges_before_body(self) -> bool:  # type: ignore[override]
        return self._is_upload

    @property
    def _is_upload(self) -> bool:
        return self.request.method == "POST" and not self.detail

    def get_parsers(self) -> list[BaseParser]:
        return [QuarantineParser()] if self.request and self._is_upload else super().get_parsers()

    def get_queryset(self) -> AdapterQuerySet:
        return Adapter.objects.shown_to(sees_everything=self._sees_everything).select_related("owner")

    def get_serializer_class(self) -> type[AdapterSerializer]:
        return StaffAdapterSerializer if self._sees_everything else AdapterSerializer

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._respond(self.get_object())

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self._present(page))

    @extend_schema(
        request={"multipart/form-data": AdapterUploadSerializer},
        responses={
            201: StaffAdapterSerializer,
            200: StaffAdapterSerializer,
            **problem(408),
            **problem(413),
            **problem(415),
            **problem(422),
        },
    )
    def create(self, request: Request) -> Response:
        """Import an adapter: one .safetensors file with a LoRA in the layout of Kohya, diffusers or PEFT.

        Its header is read under limits, and tells the family of base models, the rank and the trigger words. What the
        engine would not load whole is refused with the reason. The same bytes again answer the adapter that is there
        (200).
        """
        uploads = get_config().uploads
        self.limits = uploads.model_copy(update={"max_files": 1, "max_file_bytes": uploads.max_adapter_bytes})
        check_declared_length(request, uploads.max_adapter_bytes + FORM_BYTES)
        with (
            hold_slot(f"upload:{request.user.pk}", uploads.at_once, SLOT_SECONDS),
            quarantine() as self.quarantine,
        ):
            form = AdapterUploadSerializer(data=request.data)
            form.is_valid(raise_exception=True)
            file: IncomingFile = form.validated_data.pop("file")
            if file.refusal:
                raise ContentTooLarge(str(file.refusal), "too_large")
            adapter, is_new = services.import_adapter(
                file.path, file_name=file.name, owner=request.user, **form.validated_data
            )
        if not is_new:  # that somebody asked for it belongs into the audit trail all the same
            audit.record("adapter.import", adapter)
        return Response(
            self._present([adapter])[0],
            status=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK,
            headers={"Location": reverse("lora-detail", args=[adapter.pk])},
        )

    @extend_schema(request=AdapterChangesSerializer, responses={200: StaffAdapterSerializer, **problem(409)})
    def partial_update(self, request: Request, pk: uuid.UUID) -> Response:
        """Change what is said about an adapter. What is left out stays as it is."""
        adapter = self.get_object()
        body = AdapterChangesSerializer(data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        return self._respond(services.update_adapter(adapter, **body.validated_data))

    @extend_schema(responses={204: None, **problem(409)})
    def destroy(self, request: Request, pk: uuid.UUID) -> Response:
        """Delete an adapter that no image and no waiting job uses, and the file that was imported."""
        services.delete_adapter(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(parameters=[ThumbnailQuerySerializer], responses=A_FILE | ELSEWHERE | problem(422))
    @action(detail=True)
    def preview(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        """Download a small WebP version of the image that shows what an adapter does."""
        adapter = self.get_object()
        image = self._images().filter(pk=adapter.preview_id).first() if adapter.preview_id else None
        query = ThumbnailQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        if image is None:
            raise NotFound
        size = query.validated_data.get("size", default_size())
        try:
            return ServedFile(
                stored=thumbnail_of(image, size),
                etag=f'"{image.sha256}-{size}"',
                content_type="image/webp",
                name=file_name(adapter.name, ".webp"),
                visibility=image.visibility,
            ).respond(request)
        except (ImageFileMissing, FileNotFoundError) as error:
            raise NotFound from error

    @extend_schema(request=PreviewSerializer, responses={200: StaffAdapterSerializer, **problem(409)})
    @preview.mapping.post
    def choose_preview(self, request: Request, pk: uuid.UUID) -> Response:
        """Choose the image that shows what an adapter does. The public is shown it if the image is public."""
        adapter = self.get_object()
        body = PreviewSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        return self._respond(services.set_adapter_preview(adapter, body.validated_data["image"]))

    @extend_schema(responses={200: StaffAdapterSerializer, **problem(409)})
    @preview.mapping.delete
    def remove_preview(self, request: Request, pk: uuid.UUID) -> Response:
        """Let no image show what an adapter does. The image stays."""
        return self._respond(services.set_adapter_preview(self.get_object(), None))

    @property
    def _sees_everything(self) -> bool:
        return may_see_everything(self.request.user)

    def _images(self) -> ImageQuerySet:
        images = Image.objects.visible_to(self.request.user)
        return images if self._sees_everything else images.unflagged()

    def _present(self, adapters: Sequence[Adapter]) -> Any:
        wanted = {adapter.preview_id for adapter in adapters if adapter.preview_id}
        shown = set(self._images().filter(pk__in=wanted).values_list("pk", flat=True)) if wanted else set()
        return self.get_serializer_class()(adapters, many=True, context={"previews": shown}).data

    def _respond(self, adapter: Adapter) -> Response:
        return Response(self._present([adapter])[0])
