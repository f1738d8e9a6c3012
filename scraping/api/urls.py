"""Paths below ``/api/``."""

from django.urls import URLPattern, URLResolver, path
from rest_framework.routers import SimpleRouter

from scraping.api import result_views
from scraping.api.job_views import ScrapeJobViewSet, StartView
from scraping.api.purging import ScrapingPurgeRecordView, ScrapingPurgeView

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("scraping/jobs", ScrapeJobViewSet, basename="scrape-job")

items = result_views.ScrapedImageViewSet.as_view({"get": "list"})
pages = result_views.ScrapedPageViewSet.as_view({"get": "list"})

urlpatterns: list[URLPattern | URLResolver] = [
    path("scraping/start", StartView.as_view(), name="scraping-start"),
    path("scraping/stats", result_views.CrawlFiguresView.as_view(), name="scraping-stats"),
    path("scraping/jobs/<uuid:pk>/items", items, name="scrape-job-items"),
    path("scraping/jobs/<uuid:pk>/pages", pages, name="scrape-job-pages"),
    path("scraping/jobs/<uuid:pk>/hosts", result_views.HostsView.as_view(), name="scrape-job-hosts"),
    path("scraping/jobs/<uuid:pk>/logs", result_views.CrawlLogView.as_view(), name="scrape-job-logs"),
    path("scraping/jobs/<uuid:pk>/events", result_views.CrawlEventsView.as_view(), name="scrape-job-events"),
    path("scraping/artifacts/purge", ScrapingPurgeView.as_view(), name="scraping-artifacts-purge"),
    path("scraping/artifacts/purge/<uuid:pk>", ScrapingPurgeRecordView.as_view(), name="scraping-purge"),
    *router.urls,
]
