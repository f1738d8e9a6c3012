"""Runs in the API: made, started, stopped, resumed, cloned and followed."""

import uuid
from collections.abc import Sequence
from typing import Any, cast

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from albums.models import may_see_everything
from imagehub.accounts.models import Scope
from imagehub.api.event_streams import JobEventsView
from imagehub.api.permissions import StaffOnly, StaffOrReadOnly
from imagehub.api.schema import problem
from imagehub.api.throttling import RateLimitedMixin
from imagehub.jobs.models import JobStatus
from imagehub.jobs.outlook import look_ahead
from imagehub.jobs.registry import get_kind
from training.api.filters import TrainingRunFilter
from training.api.run_serializers import (
    CancelRunSerializer,
    CloneRunSerializer,
    LogQuerySerializer,
    MetricsQuerySerializer,
    MetricsSerializer,
    NewRunSerializer,
    ResumeRunSerializer,
    RunChangesSerializer,
    RunLogSerializer,
    TrainingRunSerializer,
)
from training.models import Checkpoint, MetricPoint, TrainingRun
from training.services import metrics, run_logs, runs
from training.services.datasets import albums_named
from training.services.run_folders import folder_of

KIND = "training"


def serialize(found: Sequence[TrainingRun], *, sees_everything: bool) -> list[dict[str, Any]]:
    """Return runs as somebody may see them, by a number of queries that does not depend on how many there are."""
    kind = get_kind(KIND)
    context = {
        "sees_everything": sees_everything,
        "job_kind": kind,
        "outlooks": look_ahead(kind, found),
        "latest_checkpoints": _latest_checkpoints(found) if sees_everything else {},
    }
    return TrainingRunSerializer(found, many=True, context=context).data


def _latest_checkpoints(found: Sequence[TrainingRun]) -> dict[uuid.UUID, int]:
    there = Checkpoint.objects.filter(run__in=[run.pk for run in found], removed_at=None)
    return dict(there.order_by("run").values_list("run").annotate(latest=Max("step")))


class TrainingRunViewSet(
    RateLimitedMixin, mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[TrainingRun]
):
    """Training runs. Everybody may know that they are there and how they go; staff make them and see everything."""

    permission_classes = [StaffOrReadOnly]
    required_scope = Scope.TRAIN
    queryset = TrainingRun.objects.select_related("owner", "base_model", "dataset", "adapter")
    serializer_class = TrainingRunSerializer
    filterset_class = TrainingRunFilter
    keyset_ordering = ("-created_at", "-id")
    lookup_value_converter = "uuid"

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._respond(self.get_object())

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(serialize(page, sees_everything=self._sees_everything))

    @extend_schema(request=NewRunSerializer, responses={201: TrainingRunSerializer, **problem(422)})
    def create(self, request: Request) -> Response:
        """Make a run from the captioned images of albums as they are now. It is pending until somebody starts it."""
        body = NewRunSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        albums = albums_named(data.pop("album_ids"))
        return self._created(runs.create_run(owner=cast(User, request.user), albums=albums, **data))

    @extend_schema(request=RunChangesSerializer, responses=TrainingRunSerializer)
    def partial_update(self, request: Request, pk: uuid.UUID) -> Response:
        """Change what a run is called, what is said of it, or whom it goes before. What is left out stays as it is."""
        run = self.get_object()
        body = RunChangesSerializer(data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        return self._respond(runs.change_run(run, **body.validated_data))

    @extend_schema(
        request=None,
        responses={200: TrainingRunSerializer, **problem(409), **problem(422), **problem(429)},
    )
    @action(detail=True, methods=["post"], rate_limit="training_start")
    def start(self, request: Request, pk: uuid.UUID) -> Response:
        """Queue a pending run. As many may be queued or running at once as are configured."""
        run = self.get_object()
        with transaction.atomic():  # one that is refused for its rate was never started
            run = runs.start_run(run)
            self.charge()
        return self._respond(run)

    @extend_schema(
        request=CancelRunSerializer,
        responses={200: TrainingRunSerializer, 202: TrainingRunSerializer, **problem(409)},
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: uuid.UUID) -> Response:
        """Cancel a run. One that waits ends at once (200); one that runs is stopping, and saves unless told otherwise (202)."""
        run = self.get_object()
        body = CancelRunSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        run = runs.cancel_run(run, TrainingRun.StopMode(body.validated_data["mode"]))
        ended = run.status == JobStatus.CANCELLED
        return self._respond(run, status.HTTP_200_OK if ended else status.HTTP_202_ACCEPTED)

    @extend_schema(
        request=ResumeRunSerializer,
        responses={200: TrainingRunSerializer, **problem(409), **problem(422), **problem(429)},
    )
    @action(detail=True, methods=["post"], rate_limit="training_start")
    def resume(self, request: Request, pk: uuid.UUID) -> Response:
        """Queue a failed or cancelled run again. It goes on from its latest checkpoint whose files are sound."""
        run = self.get_object()
        body = ResumeRunSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        from_step = runs.step_to_resume(run)
        with transaction.atomic():
            run = runs.resume_run(run, from_step=from_step, **body.validated_data)
            self.charge()
        return self._respond(run)

    @extend_schema(request=CloneRunSerializer, responses={201: TrainingRunSerializer, **problem(422)})
    @action(detail=True, methods=["post"])
    def clone(self, request: Request, pk: uuid.UUID) -> Response:
        """Make a pending run with the recipe, the seed and the very pictures of another one."""
        run = self.get_object()
        body = CloneRunSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        return self._created(runs.clone_run(run, owner=cast(User, request.user), **body.validated_data))

    @extend_schema(parameters=[MetricsQuerySerializer], responses={200: MetricsSerializer, **problem(400)})
    @action(detail=True, filterset_class=None)
    def metrics(self, request: Request, pk: uuid.UUID) -> Response:
        """Return the curves of a run, thinned out to so many points. The public sees losses only."""
        run = self.get_object()
        query = MetricsQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        found = {
            "status": run.status,
            "step": run.step,
            "total_steps": run.total_steps,
            "train": metrics.curve(run, MetricPoint.Kind.TRAIN, **asked),
            "validation": metrics.curve(run, MetricPoint.Kind.VALIDATION, **asked),
        }
        return Response(MetricsSerializer(found, context={"sees_everything": self._sees_everything}).data)

    @property
    def _sees_everything(self) -> bool:
        return may_see_everything(self.request.user)

    def _respond(self, run: TrainingRun, code: int = status.HTTP_200_OK) -> Response:
        return Response(serialize([run], sees_everything=self._sees_everything)[0], status=code)

    def _created(self, run: TrainingRun) -> Response:
        response = self._respond(run, status.HTTP_201_CREATED)
        response["Location"] = reverse("training-detail", args=[run.pk])
        return response


class RunLogView(APIView):
    """What the program of a run prints."""

    permission_classes = [StaffOnly]
    required_scope = Scope.TRAIN

    @extend_schema(
        operation_id="training_logs",
        parameters=[LogQuerySerializer],
        responses={200: RunLogSerializer, **problem(400)},
    )
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        """Return the last lines of the log of a run."""
        run = get_object_or_404(TrainingRun, pk=pk)
        query = LogQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        lines = run_logs.tail(run, lines=query.validated_data["tail"])
        return Response({"lines": lines, "log_path": str(folder_of(run).log)})


@extend_schema_view(get=extend_schema(operation_id="training_events"))
class RunEventsView(JobEventsView):
    kind = KIND
    required_scope = Scope.TRAIN
