import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from albums.models import Image
from generation import services
from generation.api.filters import GenerationJobFilter
from generation.api.serializers import GenerateSerializer, GenerationJobSerializer
from generation.models import GenerationJob
from imagehub.accounts.models import Scope
from imagehub.api.permissions import StaffOnly
from imagehub.api.schema import problem
from imagehub.api.throttling import RateLimitedMixin
from imagehub.config import get_config
from imagehub.errors import Invalid
from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import get_kind

MAX_KEY_LENGTH = 200


def serialize(jobs: Sequence[GenerationJob]) -> list[dict[str, Any]]:
    """Return jobs as the API shows them, with one query for all their pictures."""
    images: dict[UUID, list[Image]] = defaultdict(list)
    for image in Image.objects.made_by(*(job.pk for job in jobs)).order_by("source_index"):
        images[image.source_id].append(image)
    context = {"images": images, "job_kind": get_kind("generation")}
    return GenerationJobSerializer(jobs, many=True, context=context).data


class GenerateView(RateLimitedMixin, APIView):
    """Make pictures of a prompt."""

    permission_classes = [StaffOnly]
    required_scope = Scope.GENERATE
    rate_limit = "generate"

    @extend_schema(
        operation_id="generate",
        request=GenerateSerializer,
        responses={
            201: GenerationJobSerializer,
            200: GenerationJobSerializer,
            **problem(409),
            **problem(422),
        },
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                str,
                OpenApiParameter.HEADER,
                description="Sent again with the same body, it answers with the same job.",
            )
        ],
    )
    def post(self, request: Request) -> Response:
        key = self._idempotency_key(request)
        serializer = GenerateSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        job = self._job(request, serializer.validated_data, idempotency_key=key)
        with transaction.atomic():  # a job that is refused for its rate was never there
            job, is_new = services.submit_generation(job)
            if is_new:
                self.charge(job.n)
        return Response(
            serialize([job])[0],
            status=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK,
            headers={"Location": reverse("job-detail", args=[job.pk])},
        )

    @staticmethod
    def _idempotency_key(request: Request) -> str:
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > MAX_KEY_LENGTH or not key.isprintable():
            raise Invalid(
                f"It has at most {MAX_KEY_LENGTH} printable characters.", pointer="/Idempotency-Key"
            )
        return key

    @staticmethod
    def _job(request: Request, data: dict[str, Any], *, idempotency_key: str) -> GenerationJob:
        model = data["base_model"]
        return GenerationJob(
            owner=request.user,
            prompt=data["prompt"],
            negative_prompt=data["negative_prompt"],
            seed=data.get("seed", services.draw_seed()),
            steps=data.get("steps", model.default_steps),
            width=data.get("width", model.default_width),
            height=data.get("height", model.default_height),
            guidance_scale=data.get("guidance_scale", model.default_guidance_scale),
            scheduler=data.get("scheduler") or "",
            base_model=model,
            n=data["n"],
            album=data.get("album"),
            visibility=data.get("visibility", get_config().generation.default_visibility),
            idempotency_key=idempotency_key,
            body_digest=_digest(request.data) if idempotency_key else "",
        )


class JobViewSet(mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet):
    """Follow jobs, and cancel them."""

    queryset = GenerationJob.objects.select_related("owner", "base_model").newest_first()
    serializer_class = GenerationJobSerializer
    filterset_class = GenerationJobFilter
    keyset_ordering = ("-created_at", "-id")
    required_scope = Scope.GENERATE

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(serialize([self.get_object()])[0])

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(serialize(page))

    @extend_schema(responses={200: GenerationJobSerializer, 202: GenerationJobSerializer, **problem(409)})
    def destroy(self, request: Request, pk: str) -> Response:
        """Cancel a job. A waiting one ends at once (200), a running one is stopping (202)."""
        job = services.cancel_generation_job(self.get_object())
        ended = job.status == JobStatus.CANCELLED
        return Response(serialize([job])[0], status=status.HTTP_200_OK if ended else status.HTTP_202_ACCEPTED)


def _digest(body: Any) -> str:
    """Return a fingerprint of a JSON body that does not depend on the order of its fields."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
