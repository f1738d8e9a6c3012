"""Crawls in the API: started, listed, cancelled, done again and reviewed."""

import uuid
from collections.abc import Sequence
from typing import Any, cast

from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from albums.models import Album, may_see_everything
from imagehub.accounts.models import Scope
from imagehub.api.permissions import StaffOnly, StaffOrReadOnly
from imagehub.api.schema import problem
from imagehub.api.throttling import RateLimitedMixin
from imagehub.jobs.models import JobStatus
from imagehub.jobs.outlook import look_ahead
from imagehub.jobs.registry import get_kind
from scraping.api.filters import ScrapeJobFilter
from scraping.api.job_serializers import NewCrawlSerializer, ReviewSerializer, ScrapeJobSerializer
from scraping.models import ScrapeJob
from scraping.services import crawls, figures, reviewing
from scraping.services.listing import for_lists

KIND = "scraping"


def serialize(
    jobs: Sequence[ScrapeJob], *, user: User | AnonymousUser, is_list: bool = False
) -> list[dict[str, Any]]:
    """Return crawls as somebody may see them, by a number of queries that does not depend on how many there are."""
    kind = get_kind(KIND)
    sees_everything = may_see_everything(user)
    albums = {job.album_id for job in jobs if job.album_id}
    context = {
        "sees_everything": sees_everything,
        "is_list": is_list,
        "job_kind": kind,
        "outlooks": look_ahead(kind, jobs),
        "visible_albums": set(
            Album.objects.visible_to(user).filter(pk__in=albums).values_list("pk", flat=True)
        ),
        "image_counts": figures.image_counts_of(jobs) if sees_everything else {},
        "page_counts": figures.page_counts_of(jobs) if sees_everything else {},
    }
    return ScrapeJobSerializer(jobs, many=True, context=context).data


def _response(job: ScrapeJob, request: Request, code: int = status.HTTP_200_OK) -> Response:
    return Response(serialize([job], user=request.user)[0], status=code)


def _created(job: ScrapeJob, request: Request) -> Response:
    response = _response(job, request, status.HTTP_201_CREATED)
    response["Location"] = reverse("scrape-job-detail", args=[job.pk])
    return response


class StartView(RateLimitedMixin, APIView):
    """Collect pictures from the web."""

    permission_classes = [StaffOnly]
    required_scope = Scope.SCRAPE
    rate_limit = "scrape_start"

    @extend_schema(
        operation_id="scraping_start",
        request=NewCrawlSerializer,
        responses={201: ScrapeJobSerializer, **problem(429)},
    )
    def post(self, request: Request) -> Response:
        """Queue a crawl of a site, or of a list of pages and pictures.

        An address that is known to lead to where nothing is fetched from is 400 `blocked_address`. What only turns out when
        its name is looked up ends the crawl.
        """
        body = NewCrawlSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        with transaction.atomic():  # a crawl that is refused for its rate was never there
            job = crawls.start_crawl(owner=cast(User, request.user), **body.validated_data)
            self.charge()
        return _created(job, request)


class ScrapeJobViewSet(
    RateLimitedMixin, mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[ScrapeJob]
):
    """Crawls. Everybody may know that they are there and how they go; staff start them and see everything."""

    permission_classes = [StaffOrReadOnly]
    required_scope = Scope.SCRAPE
    queryset = ScrapeJob.objects.select_related("owner")
    serializer_class = ScrapeJobSerializer
    filterset_class = ScrapeJobFilter
    keyset_ordering = ("-created_at", "-id")
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[ScrapeJob]:
        jobs = super().get_queryset()
        # Thousands of addresses may stand there, of which the public is told none.
        if not may_see_everything(self.request.user):
            return jobs.defer("config")
        return for_lists(jobs) if self.action == "list" else jobs

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return _response(self.get_object(), request)

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(serialize(page, user=request.user, is_list=True))

    @extend_schema(
        request=None, responses={200: ScrapeJobSerializer, 202: ScrapeJobSerializer, **problem(409)}
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: uuid.UUID) -> Response:
        """Cancel a crawl. One that waits ends at once (200); one that runs is stopping (202). What it has brought stays."""
        job = crawls.cancel_crawl(self.get_object())
        ended = job.status == JobStatus.CANCELLED
        return _response(job, request, status.HTTP_200_OK if ended else status.HTTP_202_ACCEPTED)

    @extend_schema(request=None, responses={201: ScrapeJobSerializer, **problem(409), **problem(429)})
    @action(detail=True, methods=["post"], rate_limit="scrape_start")
    def retry(self, request: Request, pk: uuid.UUID) -> Response:
        """Crawl once more, as a new job into the same album. What is there already is not fetched again."""
        before = self.get_object()
        with transaction.atomic():
            job = crawls.retry_crawl(before, owner=cast(User, request.user))
            self.charge()
        return _created(job, request)

    @extend_schema(request=ReviewSerializer, responses={200: ScrapeJobSerializer, **problem(409)})
    @action(detail=True, methods=["post"])
    def review(self, request: Request, pk: uuid.UUID) -> Response:
        """Decide about pictures that wait for a review: which are taken into the album, in a moment, and which are not."""
        job = self.get_object()
        body = ReviewSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        reviewing.decide(job, **body.validated_data)
        job.refresh_from_db()
        return _response(job, request)
