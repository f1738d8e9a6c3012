"""Making sets, and following them."""

import uuid
from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.cache import get_conditional_response
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from albums.api.files import AnswersFiles
from albums.models import Album
from generation import services, themes
from generation.api import idempotency
from generation.api.filters import SetItemFilter
from generation.api.generate_views import parameters
from generation.api.serializers import JobImageSerializer
from generation.api.set_run_serializers import (
    GenerateSetSerializer,
    SetItemSerializer,
    SetRunDetailSerializer,
    SetRunSerializer,
    SheetQuerySerializer,
    ThemeSerializer,
)
from generation.models import GenerationJob, SetRun
from generation.services.contact_sheets import FORMATS, contact_sheet
from imagehub.accounts.models import Scope
from imagehub.api.filters import refuse_unknown_parameters
from imagehub.api.permissions import StaffOnly
from imagehub.api.schema import problem
from imagehub.api.throttling import RateLimitedMixin
from imagehub.jobs.models import JobStatus

ITEMS_IN_DETAIL = 1000
"""So many pictures stand in one answer; of a larger set, ``items_url`` has them page by page."""


class GenerateSetView(RateLimitedMixin, APIView):
    """Make the pictures of a set."""

    permission_classes = [StaffOnly]
    required_scope = Scope.GENERATE
    rate_limit = "generate"

    @extend_schema(
        operation_id="albums_generate",
        request=GenerateSetSerializer,
        responses={
            201: SetRunDetailSerializer,
            200: SetRunDetailSerializer,
            **problem(409),
            **problem(422),
        },
        parameters=[idempotency.PARAMETER],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        """Make all pictures of a set with a theme, or some of its rows: a job for each, and an album that fills.

        However many there are, they cost one unit of the rate limit.
        """
        key = idempotency.idempotency_of(request, template=str(pk))
        if earlier := services.find_earlier(SetRun, owner=request.user, **key):
            return self._respond(earlier, is_new=False)
        template = get_object_or_404(Album.objects.visible_to(request.user), pk=pk)
        body = GenerateSetSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        run = SetRun(
            owner=request.user, template=template, theme=data["theme"], album=data.get("album"), **key
        )
        with transaction.atomic():  # a run that is refused for its rate was never there
            run, is_new = services.submit_set_run(
                run,
                self._pattern(request, template, data),
                rows=data.get("rows"),
                album_name=data.get("album_name", ""),
            )
            if is_new:
                self.charge()
        return self._respond(run, is_new=is_new)

    @staticmethod
    def _respond(run: SetRun, *, is_new: bool) -> Response:
        return Response(
            present_detail(run),
            status=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK,
            headers={"Location": reverse("set-run-detail", args=[run.pk])},
        )

    @staticmethod
    def _pattern(request: Request, template: Album, data: dict[str, Any]) -> GenerationJob:
        """Return what the jobs of the run have in common: what is asked, or else what the set says."""
        data.setdefault("negative_prompt", template.negative_prompt)
        if "loras" not in data and template.is_set_template:
            chosen = services.adapters_of_template(template)
            data["loras"] = [{"id": adapter, "weight": weight} for adapter, weight in chosen]
        return GenerationJob(
            owner=request.user, **parameters(data, width=template.width, height=template.height)
        )


class SetRunViewSet(
    AnswersFiles,
    RateLimitedMixin,
    mixins.RetrieveModelMixin,
    mixins.ListModelMixin,
    viewsets.GenericViewSet[SetRun],
):
    """Follow set runs, retry what failed, cancel the rest."""

    permission_classes = [StaffOnly]
    queryset = SetRun.objects.select_related("owner")
    serializer_class = SetRunSerializer
    lookup_value_converter = "uuid"
    file_actions = frozenset({"contact_sheet"})
    keyset_ordering = ("-created_at", "-id")
    required_scope = Scope.GENERATE
    rate_limit = "generate"

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        context = {"progress": services.progress_of(page)}
        return self.get_paginated_response(SetRunSerializer(page, many=True, context=context).data)

    @extend_schema(responses={200: SetRunDetailSerializer})
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(present_detail(self.get_object()))

    @extend_schema(responses={200: SetRunDetailSerializer, 202: SetRunDetailSerializer, **problem(409)})
    def destroy(self, request: Request, pk: uuid.UUID) -> Response:
        """Cancel what is not finished. What waits ends at once (200), what runs is stopping (202)."""
        run = self.get_object()
        services.cancel_set_run(run)
        body = present_detail(run)
        ended = body["status"] in JobStatus.FINISHED
        return Response(body, status=status.HTTP_200_OK if ended else status.HTTP_202_ACCEPTED)

    @extend_schema(request=None, responses={200: SetRunDetailSerializer, **problem(409), **problem(422)})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: uuid.UUID) -> Response:
        """Make those pictures anew that have failed or were cancelled, in their places, with the same seeds."""
        run = self.get_object()
        with transaction.atomic():
            services.retry_set_run(run, owner=request.user)
            self.charge()
        return Response(present_detail(run))

    @extend_schema(
        parameters=[SheetQuerySerializer],
        responses={(200, kind): OpenApiTypes.BINARY for kind in FORMATS.values()} | problem(422),
    )
    @action(detail=True, url_path="contact-sheet")
    def contact_sheet(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        """Look at the pictures side by side, with their names, at most 120 on one sheet.

        The header `X-Sheets` says how many sheets there are.
        """
        run = self.get_object()
        refuse_unknown_parameters(request, known=SheetQuerySerializer().fields)
        query = SheetQuerySerializer(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        sheet = contact_sheet(
            run, page=query.validated_data["page"], file_format=query.validated_data["type"]
        )
        response = get_conditional_response(request, etag=sheet.etag) or HttpResponse(
            sheet.content, content_type=sheet.content_type
        )
        response["ETag"] = sheet.etag
        response["Cache-Control"] = "private, no-cache"
        response["X-Content-Type-Options"] = "nosniff"
        response["X-Sheets"] = str(sheet.pages)
        return response


class SetItemViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[GenerationJob]):
    """The pictures of a set run, in the order of their rows."""

    permission_classes = [StaffOnly]
    queryset = GenerationJob.objects.none()
    serializer_class = SetItemSerializer
    filterset_class = SetItemFilter
    keyset_ordering = ("set_index", "id")

    def get_queryset(self) -> QuerySet[GenerationJob]:
        run = get_object_or_404(SetRun, pk=self.kwargs["pk"])
        return services.items_of(run).only(*ITEM_COLUMNS)

    @extend_schema(operation_id="set_runs_items_list", responses=SetItemSerializer(many=True))
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(present_items(page))


class RandomThemeView(APIView):
    """Ideas for those who have none."""

    permission_classes = [AllowAny]

    @extend_schema(operation_id="themes_random", responses=ThemeSerializer)
    def get(self, request: Request) -> Response:
        """Return a theme that was made up just now."""
        return Response({"theme": themes.random_theme()}, headers={"Cache-Control": "no-store"})


ITEM_COLUMNS = ("id", "set_index", "name", "status", "error_code", "error_detail")


def present_detail(run: SetRun) -> dict[str, Any]:
    """Return a set run as the API shows it, with its first pictures, by a constant number of queries."""
    items = services.items_of(run).only(*ITEM_COLUMNS).order_by("set_index")[:ITEMS_IN_DETAIL]
    context = {"progress": services.progress_of([run]), "items": present_items(items)}
    return SetRunDetailSerializer(run, context=context).data


def present_items(jobs: Iterable[GenerationJob]) -> list[dict[str, Any]]:
    """Return jobs as pictures of their set, by one query for all images. What is in the trash is not shown."""
    jobs = list(jobs)
    images = {image.source_id: image for image in services.images_of(jobs)}
    return [
        {
            "index": job.set_index,
            "name": job.name,
            "status": job.status,
            "job": str(job.pk),
            "image": JobImageSerializer(images[job.pk]).data if job.pk in images else None,
            "error": {"code": job.error_code, "detail": job.error_detail} if job.error_code else None,
        }
        for job in jobs
    ]
