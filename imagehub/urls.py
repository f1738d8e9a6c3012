"""All routes. This is the one module of the platform that knows the apps."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from imagehub.api import problems

api = [
    path("", include("imagehub.operations.api.urls")),
    path("", include("imagehub.accounts.api.urls")),
    path("", include("albums.api.urls")),
    path("", include("generation.api.urls")),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs", RedirectView.as_view(url="/api/docs/")),
    path("docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
]

urlpatterns = [
    path("admin", RedirectView.as_view(url="/admin/")),
    path("admin/", admin.site.urls),
    path("api/", include(api)),
    path("", include("albums.urls")),
]

admin.site.site_header = admin.site.site_title = "ImageHub"
admin.site.index_title = "Administration"

handler400 = problems.bad_request
handler403 = problems.permission_denied
handler404 = problems.not_found
handler500 = problems.server_error
