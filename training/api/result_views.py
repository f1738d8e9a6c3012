"""What comes out of runs: samples, checkpoints and adapters; and what is deleted of it again."""

import uuid
from collections.abc import Iterator
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

from django.contrib.auth.models import User
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from albums.api.files import AnswersFiles, file_name
from albums.models import may_see_everything
from imagehub.accounts.models import Scope
from imagehub.api.permissions import StaffOnly, StaffOrReadOnly
from imagehub.api.schema import problem
from imagehub.config import get_config
from imagehub.operations.api.purge_views import PurgeRecordView, PurgeRequestSerializer, PurgeView
from training.api.run_serializers import (
    CheckpointSerializer,
    FiguresSerializer,
    PromoteSerializer,
    RecipeSchemaSerializer,
    SampleSerializer,
    TrainedAdapterSerializer,
    TrainingPurgeSerializer,
)
from training.models import Adapter, AdapterQuerySet, Checkpoint, Sample, TrainingRun
from training.presets import PRESETS
from training.recipe import Recipe
from training.services import metrics, promoting
from training.services.adapters import locate_adapter
from training.services.purging import PURGE
from training.services.run_folders import file_in, folder_of

PIECE_BYTES = 256 * 1024


class OfARun(viewsets.GenericViewSet):
    """What belongs to one run, for staff."""

    permission_classes = [StaffOnly]
    required_scope = Scope.TRAIN

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        run = get_object_or_404(TrainingRun.objects.only("pk"), pk=self.kwargs["pk"])
        return super().get_queryset().filter(run=run)


class SampleViewSet(AnswersFiles, mixins.ListModelMixin, OfARun):
    """Pictures that a run made on the way. They show what it learns from, so only staff see them."""

    queryset = Sample.objects.all()
    serializer_class = SampleSerializer
    keyset_ordering = ("-created_at", "-id")
    file_actions = frozenset({"file"})

    @extend_schema(responses={(200, "image/png"): OpenApiTypes.BINARY})
    def file(self, request: Request, pk: uuid.UUID, sample_id: uuid.UUID) -> HttpResponseBase:
        """Download a sample."""
        sample = get_object_or_404(self.get_queryset().select_related("run"), pk=sample_id)
        path = file_in(folder_of(sample.run), sample.file_name)
        if path is None:
            raise NotFound
        name = f"{file_name(sample.run.name, '')}-{sample.step}-{sample.index}.png"
        return _file(path, name=name, content_type="image/png")


class CheckpointViewSet(mixins.ListModelMixin, OfARun):
    """States of a run that it can go on from."""

    queryset = Checkpoint.objects.select_related("run")
    serializer_class = CheckpointSerializer
    keyset_ordering = ("-step", "-id")

    @extend_schema(
        request=PromoteSerializer,
        responses={202: CheckpointSerializer, 200: CheckpointSerializer, **problem(409), **problem(422)},
    )
    def promote(self, request: Request, pk: uuid.UUID, checkpoint_id: uuid.UUID) -> Response:
        """Make an adapter of a checkpoint.

        It is made in a moment (202): `promotion` tells how far it is. Where there is one already it is told (200).
        """
        checkpoint = self._checkpoint(checkpoint_id)
        body = PromoteSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        user = cast(User, request.user)
        checkpoint = promoting.promote_checkpoint(checkpoint, user=user, **body.validated_data)
        is_done = checkpoint.adapter_id is not None
        return Response(
            CheckpointSerializer(checkpoint).data,
            status=status.HTTP_200_OK if is_done else status.HTTP_202_ACCEPTED,
        )

    @extend_schema(request=None, responses={200: CheckpointSerializer, **problem(409)})
    def pin(self, request: Request, pk: uuid.UUID, checkpoint_id: uuid.UUID) -> Response:
        """Keep a checkpoint whatever else is deleted."""
        return self._pin(checkpoint_id, is_pinned=True)

    @extend_schema(request=None, responses={200: CheckpointSerializer, **problem(409)})
    def unpin(self, request: Request, pk: uuid.UUID, checkpoint_id: uuid.UUID) -> Response:
        """Let a checkpoint go the way of others."""
        return self._pin(checkpoint_id, is_pinned=False)

    def _pin(self, checkpoint_id: uuid.UUID, *, is_pinned: bool) -> Response:
        checkpoint = promoting.pin_checkpoint(self._checkpoint(checkpoint_id), is_pinned=is_pinned)
        return Response(CheckpointSerializer(checkpoint).data)

    def _checkpoint(self, checkpoint_id: uuid.UUID) -> Checkpoint:
        return get_object_or_404(self.get_queryset(), pk=checkpoint_id)


@extend_schema_view(list=extend_schema(operation_id="training_loras"))
class TrainedAdapterViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Adapter]):
    """Adapters that came out of runs. The public is shown those that are enabled, and never where they lie."""

    permission_classes = [StaffOrReadOnly]
    required_scope = Scope.TRAIN
    serializer_class = TrainedAdapterSerializer
    keyset_ordering = ("-created_at", "-id")

    def get_queryset(self) -> AdapterQuerySet:
        shown = Adapter.objects.shown_to(sees_everything=may_see_everything(self.request.user))
        return shown.filter(training_run__isnull=False).select_related("training_run")

    def get_serializer_context(self) -> dict[str, Any]:
        sees_everything = may_see_everything(self.request.user)
        return super().get_serializer_context() | {"sees_everything": sees_everything}


class AdapterFileView(APIView):
    """The file of an adapter that came out of a run."""

    permission_classes = [StaffOnly]
    required_scope = Scope.TRAIN

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:  # noqa: FBT001, FBT002
        return super().perform_content_negotiation(request, force=True)  # whatever the caller accepts

    @extend_schema(
        operation_id="training_lora_download",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **problem(422)},
    )
    def get(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        """Download the file of an adapter, which other programs read too."""
        adapter = get_object_or_404(Adapter.objects.filter(training_run__isnull=False), pk=pk)
        name = file_name(adapter.name, ".safetensors")
        return _file(
            locate_adapter(adapter), name=name, content_type="application/octet-stream", is_attachment=True
        )


class FiguresView(APIView):
    """All runs together."""

    permission_classes = [StaffOrReadOnly]

    @extend_schema(operation_id="training_stats", responses=FiguresSerializer)
    def get(self, request: Request) -> Response:
        """Return how many runs stand where."""
        return Response(asdict(metrics.figures()))


class RecipeSchemaView(APIView):
    """What may stand in the ``config`` of a run."""

    permission_classes = [StaffOrReadOnly]

    @extend_schema(operation_id="training_recipe_schema", responses=RecipeSchemaSerializer)
    def get(self, request: Request) -> Response:
        """Return the JSON schema of recipes, what this server allows of it, and presets to start from."""
        limits = get_config().training
        ranges = {"steps": limits.steps, "rank": limits.rank, "resolution": limits.resolution}
        bounds = {name: allowed.model_dump() for name, allowed in ranges.items()}
        bounds["batch_size"] = {"minimum": 1, "maximum": limits.batch_size_maximum}
        return Response({"schema": Recipe.model_json_schema(), "bounds": bounds, "presets": PRESETS})


@extend_schema_view(
    post=extend_schema(
        operation_id="training_artifacts_purge",
        request=PurgeRequestSerializer,
        responses={HTTPStatus.ACCEPTED: TrainingPurgeSerializer},
        description="Ask for the files of old runs to be deleted, but for checkpoints that are pinned, best or in use.\n\n"
        "The answer is a record, at which `Location` tells how far it is and what came of it.",
    )
)
class TrainingPurgeView(PurgeView):
    """Clearing out the files of runs that ended some time ago."""

    kind = PURGE
    serializer_class = TrainingPurgeSerializer
    record_route = "training-purge"


@extend_schema_view(
    get=extend_schema(
        operation_id="training_artifacts_purge_record",
        responses=TrainingPurgeSerializer,
        description="Return how far a purge is, and what came of it.",
    )
)
class TrainingPurgeRecordView(PurgeRecordView):
    """One clearing out of the files of runs."""

    kind = PURGE
    serializer_class = TrainingPurgeSerializer


def _file(path: Path, *, name: str, content_type: str, is_attachment: bool = False) -> HttpResponseBase:
    """Answer with a file that lies under one of the managed roots, for nobody to keep."""
    # Not Django's FileResponse: its blocks of 4 KiB cost ten times the processor time.
    response = StreamingHttpResponse(_pieces(path), content_type=content_type)
    response["Content-Length"] = path.stat().st_size
    response["Content-Disposition"] = content_disposition_header(is_attachment, name)
    response["Cache-Control"] = "private, no-cache"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-site"
    return response


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
