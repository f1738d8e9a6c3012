from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from albums.models import Image
from generation import services
from generation.api.filters import GenerationJobFilter
from generation.api.job_serializers import CancelledSerializer, CancelSerializer, PrioritySerializer
from generation.api.serializers import GenerationJobSerializer
from generation.models import GenerationJob
from imagehub.accounts.models import Scope
from imagehub.api.event_streams import JobEventsView
from imagehub.api.schema import problem
from imagehub.api.throttling import RateLimitedMixin
from imagehub.jobs import live
from imagehub.jobs.live import Preview
from imagehub.jobs.models import JobStatus
from imagehub.jobs.outlook import look_ahead
from imagehub.jobs.registry import get_kind


def serialize(
    jobs: Sequence[GenerationJob], *, previews: Mapping[UUID, Preview] | None = None
) -> list[dict[str, Any]]:
    """Return jobs as the API shows them, with one query for all their pictures."""
    images: dict[UUID, list[Image]] = defaultdict(list)
    for image in Image.objects.made_by(*(job.pk for job in jobs)).order_by("source_index"):
        images[image.source_id].append(image)
    kind = get_kind("generation")
    context = {
        "images": images,
        "job_kind": kind,
        "outlooks": look_ahead(kind, jobs),
        "previews": previews or {},
    }
    return GenerationJobSerializer(jobs, many=True, context=context).data


class JobViewSet(RateLimitedMixin, mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet):
    """Follow jobs, put them before others, cancel them, and try them again."""

    queryset = GenerationJob.objects.select_related("owner", "base_model").newest_first()
    serializer_class = GenerationJobSerializer
    filterset_class = GenerationJobFilter
    keyset_ordering = ("-created_at", "-id")
    required_scope = Scope.GENERATE

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        job = self.get_object()
        if job.status != JobStatus.RUNNING:
            return Response(serialize([job])[0])
        live.watch_once(job.pk)  # who polls sees what listeners see
        return Response(serialize([job], previews=live.previews([job]))[0])

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(serialize(page))

    @extend_schema(responses={200: GenerationJobSerializer, 202: GenerationJobSerializer, **problem(409)})
    def destroy(self, request: Request, pk: str) -> Response:
        """Cancel a job. A waiting one ends at once (200), a running one is stopping (202)."""
        job = services.cancel_generation_job(self.get_object())
        ended = job.status == JobStatus.CANCELLED
        return Response(serialize([job])[0], status=status.HTTP_200_OK if ended else status.HTTP_202_ACCEPTED)

    @extend_schema(request=PrioritySerializer, responses={200: GenerationJobSerializer, **problem(409)})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Let a job go before or behind others. What runs is not interrupted."""
        job = self.get_object()
        body = PrioritySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        job = services.prioritise_generation_job(job, **body.validated_data)
        return Response(serialize([job])[0])

    @extend_schema(
        request=None,
        responses={201: GenerationJobSerializer, **problem(409), **problem(422), **problem(429)},
    )
    @action(detail=True, methods=["post"], rate_limit="generate")
    def retry(self, request: Request, pk: str) -> Response:
        """Ask again for what a failed or cancelled job did not make: a new job, with the same seed."""
        job = self.get_object()
        with transaction.atomic():  # a job that is refused for its rate was never there
            again = services.retry_generation_job(job, owner=request.user)
            self.charge(again.n)
        return Response(
            serialize([again])[0],
            status=status.HTTP_201_CREATED,
            headers={"Location": reverse("job-detail", args=[again.pk])},
        )

    @extend_schema(request=CancelSerializer, responses=CancelledSerializer)
    @action(detail=False, methods=["post"], url_path="cancel", pagination_class=None, filterset_class=None)
    def cancel_many(self, request: Request) -> Response:
        """Cancel all jobs to which everything in the body applies."""
        body = CancelSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(vars(services.cancel_generation_jobs(**body.validated_data)))


@extend_schema_view(get=extend_schema(operation_id="job_events"))
class GenerationEventsView(JobEventsView):
    kind = "generation"
    required_scope = Scope.GENERATE
