import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import django_filters
from django.db import transaction
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from imagehub.accounts.models import Scope
from imagehub.api.permissions import StaffOnly
from imagehub.api.schema import problem
from imagehub.api.throttling import RateLimitedMixin
from imagehub.jobs.models import JobStatus
from imagehub.jobs.outlook import look_ahead
from imagehub.jobs.registry import get_kind
from training.api.labeling_serializers import (
    LabelingItemSerializer,
    LabelingJobSerializer,
    NewLabelingSerializer,
)
from training.models import LabelingItem, LabelingJob
from training.services import labeling


def serialize(jobs: Sequence[LabelingJob]) -> list[dict[str, Any]]:
    """Return jobs as the API shows them, with one query for the states of all their images."""
    kind = get_kind("labeling")
    context = {
        "job_kind": kind,
        "outlooks": look_ahead(kind, jobs),
        "counts": labeling.counts_of(jobs),
    }
    return LabelingJobSerializer(jobs, many=True, context=context).data


class LabelingView(RateLimitedMixin, APIView):
    """Have a model say what it sees."""

    permission_classes = [StaffOnly]
    required_scope = Scope.TRAIN
    rate_limit = "labeling"

    @extend_schema(
        operation_id="labeling_create",
        request=NewLabelingSerializer,
        responses={201: LabelingJobSerializer, **problem(422), **problem(429)},
    )
    def post(self, request: Request) -> Response:
        """Queue a job that captions images, tags them, or judges whether they are fit for everybody.

        What people have said stays unless `overwrite` is true. An image that the model fails at stays as it was: one that
        nobody has judged stays `unknown`, and is never called safe.
        """
        body = NewLabelingSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        with transaction.atomic():  # a job that is refused for its rate was never there
            job = labeling.submit_labeling(
                owner=request.user,  # type: ignore[arg-type]
                task=data["task"],
                image_ids=_image_ids(data),
                overwrite=data["overwrite"],
            )
            self.charge()
        return Response(
            serialize([job])[0],
            status=status.HTTP_201_CREATED,
            headers={"Location": reverse("labeling-job-detail", args=[job.pk])},
        )


class LabelingJobFilter(django_filters.FilterSet):
    class Meta:
        model = LabelingJob
        fields = ["status", "task"]


@extend_schema_view(list=extend_schema(responses=LabelingJobSerializer(many=True)))
class LabelingJobViewSet(
    mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[LabelingJob]
):
    """Follow labeling jobs, and cancel them."""

    permission_classes = [StaffOnly]
    required_scope = Scope.TRAIN
    queryset = LabelingJob.objects.select_related("owner")
    serializer_class = LabelingJobSerializer
    filterset_class = LabelingJobFilter
    keyset_ordering = ("-created_at", "-id")
    lookup_value_converter = "uuid"

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(serialize([self.get_object()])[0])

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(serialize(page))

    @extend_schema(
        request=None, responses={200: LabelingJobSerializer, 202: LabelingJobSerializer, **problem(409)}
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Cancel a job. A waiting one ends at once (200), a running one is stopping (202). What was labeled stays so."""
        job = labeling.cancel_labeling(self.get_object())
        ended = job.status == JobStatus.CANCELLED
        return Response(serialize([job])[0], status=status.HTTP_200_OK if ended else status.HTTP_202_ACCEPTED)


class LabelingItemFilter(django_filters.FilterSet):
    class Meta:
        model = LabelingItem
        fields = ["state"]


class LabelingItemViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[LabelingItem]):
    """The images of a labeling job, in their order."""

    permission_classes = [StaffOnly]
    queryset = LabelingItem.objects.none()
    serializer_class = LabelingItemSerializer
    filterset_class = LabelingItemFilter
    keyset_ordering = ("position", "id")

    def get_queryset(self) -> QuerySet[LabelingItem]:
        if "pk" not in self.kwargs:  # the schema asks for it, too
            return super().get_queryset()
        return LabelingItem.objects.filter(job=get_object_or_404(LabelingJob, pk=self.kwargs["pk"]))


def _image_ids(data: dict[str, Any]) -> Iterable[uuid.UUID]:
    if "image_ids" in data:
        return data["image_ids"]
    return data["album"].memberships.in_order().values_list("image_id", flat=True)
