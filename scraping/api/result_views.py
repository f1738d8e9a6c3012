"""What crawls have met, for staff: pictures, pages, hosts, their logs and events; and figures of all of them."""

import uuid
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from albums.models import may_see_everything
from imagehub.accounts.models import Scope
from imagehub.api.event_streams import JobEventsView
from imagehub.api.permissions import StaffOnly, StaffOrReadOnly
from imagehub.api.schema import problem
from imagehub.jobs.run_log import tail_of_job
from scraping.api.filters import ScrapedImageFilter, ScrapedPageFilter
from scraping.api.job_views import KIND
from scraping.api.result_serializers import (
    CrawlFiguresSerializer,
    CrawlLogQuerySerializer,
    CrawlLogSerializer,
    HostsSerializer,
    ScrapedImageSerializer,
    ScrapedPageSerializer,
)
from scraping.models import ScrapedImage, ScrapedPage, ScrapeJob
from scraping.services import figures, hosts
from scraping.services.folders import log_of

MOST_HOSTS = 200
"""Of a crawl, that are told."""


class OfACrawl(viewsets.GenericViewSet):
    """What belongs to one crawl, for staff."""

    permission_classes = [StaffOnly]
    required_scope = Scope.SCRAPE

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        job = get_object_or_404(ScrapeJob.objects.only("pk"), pk=self.kwargs["pk"])
        return super().get_queryset().filter(job=job)


@extend_schema_view(list=extend_schema(operation_id="scraping_jobs_items"))
class ScrapedImageViewSet(mixins.ListModelMixin, OfACrawl):
    """The pictures that a crawl has found, in the order in which it was done with them."""

    queryset = ScrapedImage.objects.all()
    serializer_class = ScrapedImageSerializer
    filterset_class = ScrapedImageFilter
    keyset_ordering = ("position",)
    unique_keys = ("position",)  # of one crawl


@extend_schema_view(list=extend_schema(operation_id="scraping_jobs_pages"))
class ScrapedPageViewSet(mixins.ListModelMixin, OfACrawl):
    """The pages that a crawl has met, in the order in which it was done with them."""

    queryset = ScrapedPage.objects.all()
    serializer_class = ScrapedPageSerializer
    filterset_class = ScrapedPageFilter
    keyset_ordering = ("id",)


class HostsView(APIView):
    """How the hosts of a crawl were met."""

    permission_classes = [StaffOnly]
    required_scope = Scope.SCRAPE

    @extend_schema(operation_id="scraping_jobs_hosts", responses=HostsSerializer)
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        """Return what became of the addresses of each host of a crawl, at most 200, and how all crawls treat it."""
        job = get_object_or_404(ScrapeJob.objects.only("pk"), pk=pk)
        found = hosts.hosts_of(job, most=MOST_HOSTS + 1)
        told = {"results": found[:MOST_HOSTS], "is_truncated": len(found) > MOST_HOSTS}
        return Response(HostsSerializer(told).data)


class CrawlLogView(APIView):
    """What the program of a crawl prints."""

    permission_classes = [StaffOnly]
    required_scope = Scope.SCRAPE

    @extend_schema(
        operation_id="scraping_jobs_logs",
        parameters=[CrawlLogQuerySerializer],
        responses={200: CrawlLogSerializer, **problem(400)},
    )
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        """Return the last lines of the log of a crawl."""
        job = get_object_or_404(ScrapeJob.objects.only("pk"), pk=pk)
        query = CrawlLogQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        log = log_of(job)
        lines = tail_of_job(log, job.pk, lines=query.validated_data["tail"])
        return Response({"lines": lines, "log_path": str(log)})


@extend_schema_view(get=extend_schema(operation_id="scraping_jobs_events"))
class CrawlEventsView(JobEventsView):
    kind = KIND
    required_scope = Scope.SCRAPE


class CrawlFiguresView(APIView):
    """All crawls together."""

    permission_classes = [StaffOrReadOnly]

    @extend_schema(operation_id="scraping_stats", responses=CrawlFiguresSerializer)
    def get(self, request: Request) -> Response:
        """Return how many crawls stand where; to staff also what they keep here and remember of hosts."""
        sees_everything = may_see_everything(request.user)
        found = asdict(figures.figures()) | (asdict(figures.store_figures()) if sees_everything else {})
        return Response(CrawlFiguresSerializer(found, context={"sees_everything": sees_everything}).data)
