"""The browsable page of the API: Swagger UI from our own files, with nothing written into the page."""

from functools import lru_cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.request import Request
from rest_framework.response import Response


@lru_cache(maxsize=1)
def public_schema() -> dict[str, Any]:
    """Return the schema of all routes. It is the same for everybody, and to make it takes half a second."""
    return SchemaGenerator().get_schema(request=None, public=True)


class OnceMadeSchema(SchemaGenerator):
    """The generator of a view that answers strangers: it makes the schema when it is first asked for."""

    def get_schema(self, request: Request | None = None, public: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        return public_schema()


class SchemaView(SpectacularAPIView):
    generator_class = OnceMadeSchema


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
