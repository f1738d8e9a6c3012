"""All routes. This is the one module of the platform that knows the apps."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from imagehub.api import problems
from imagehub.api.docs import DocsView, SchemaView
from imagehub.operations.api.metrics_views import MetricsView

api = [
    path("", include("imagehub.accounts.api.urls")),
    path("", include("imagehub.operations.api.urls")),
    path("", include("albums.api.urls")),
    path("", include("training.api.urls")),
    path("", include("scraping.api.urls")),
    path("", include("generation.api.urls")),
    path("schema/", SchemaView.as_view(), name="schema"),
    path("docs", RedirectView.as_view(url="/api/docs/")),
    path("docs/", DocsView.as_view(), name="docs"),
]

urlpatterns = [
    path("admin", RedirectView.as_view(url="/admin/")),
    path("admin/", admin.site.urls),
    path("api/", include(api)),
    path("metrics", MetricsView.as_view(), name="metrics"),
    path("", include("albums.urls")),
]

admin.site.site_header = admin.site.site_title = "ImageHub"
admin.site.index_title = "Administration"

handler400 = problems.bad_request
handler403 = problems.permission_denied
handler404 = problems.not_found
handler500 = problems.server_error
