"""The browsable page of the API: Swagger UI from our own files, with nothing written into the page."""

from typing import Any

from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerView
from rest_framework.request import Request
from rest_framework.response import Response


class DocsView(SpectacularSwaggerView):
    """Swagger UI under the policy of every page: the script that starts it is a static file."""

    url_name = "schema"
    template_name = "imagehub/api_docs.html"
    http_method_names = ["get", "head"]

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Answer with the page. There is no sign-in by popup here, so it stays cut off from other windows."""
        response = super().get(request, *args, **kwargs)
        del response.headers["Cross-Origin-Opener-Policy"]
        return response
