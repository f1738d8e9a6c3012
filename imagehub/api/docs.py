"""The browsable page of the API: Swagger UI from our own files, with nothing written into the page."""

from functools import lru_cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.request import Request
from rest_framework.response import Response


@lru_cache(maxsize=1)
def public_schema() -> dict[str, Any]:
    """Return the schema of all routes. It is the same for everybody, and to make it takes half a second."""
    return SchemaGenerator().get_schema(request=None, public=True)


@lru_cache(maxsize=1)
def public_yaml() -> bytes:
    """Return it as a file. To write it takes another half."""
    return OpenApiYamlRenderer().render(public_schema())


class OnceWrittenYaml(OpenApiYamlRenderer):
    """Writes the schema once; problems come this way too."""

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        return public_yaml() if data is public_schema() else super().render(data)


class OnceWrittenYaml2(OnceWrittenYaml):
    media_type = "application/yaml"


class OnceMadeSchema(SchemaGenerator):
    """The generator of a view that answers strangers: it makes the schema when it is first asked for."""

    def get_schema(self, request: Request | None = None, public: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        return public_schema()


class SchemaView(SpectacularAPIView):
    generator_class = OnceMadeSchema
    renderer_classes = [OnceWrittenYaml, OnceWrittenYaml2, OpenApiJsonRenderer, OpenApiJsonRenderer2]


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
