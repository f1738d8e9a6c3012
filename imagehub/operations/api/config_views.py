from dataclasses import asdict
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from imagehub import config
from imagehub.api.permissions import StaffOnly
from imagehub.api.schema import problem
from imagehub.config_file import ConfigInvalid
from imagehub.config_schema import Config
from imagehub.operations.configuration import change_configuration, reload_configuration
from imagehub.roots import root


class CacheStateSerializer(serializers.Serializer):
    """What the process that answers knows of the configuration file, and how the file is now."""

    cached = serializers.BooleanField()
    config_path = serializers.CharField()
    file_exists = serializers.BooleanField()
    cached_mtime = serializers.DateTimeField(allow_null=True)
    file_mtime = serializers.DateTimeField(allow_null=True)
    cache_stale = serializers.BooleanField(
        help_text="The file has changed since it was read; the next use reads it."
    )
    problem = serializers.CharField(
        help_text="What is wrong with the file; empty when nothing is.", allow_blank=True
    )
    loaded_at = serializers.DateTimeField(allow_null=True)


class ConfigView(APIView):
    """What operators tune while the system runs."""

    permission_classes = [StaffOnly]

    @extend_schema(operation_id="config_retrieve", responses=Config)
    def get(self, request: Request) -> Response:
        """Return the configuration in force, defaults included."""
        return Response(_body(config.get_config()))

    @extend_schema(
        operation_id="config_change",
        request=OpenApiTypes.OBJECT,
        responses={200: Config, **problem(409)},
    )
    def patch(self, request: Request) -> Response:
        """Change a part of it. The body is nested like the answer; null brings back a default."""
        if not isinstance(request.data, dict):
            raise serializers.ValidationError("An object is expected.")
        try:
            changed = change_configuration(request.data)
        except ConfigInvalid as error:
            raise serializers.ValidationError(_nested(error)) from error
        return Response(_body(changed))


class ConfigCacheView(APIView):
    """How the process that answers stands to the file."""

    permission_classes = [StaffOnly]

    @extend_schema(responses=CacheStateSerializer)
    def get(self, request: Request) -> Response:
        return Response(CacheStateSerializer(asdict(config.cache_state())).data)


class ConfigReloadView(APIView):
    """Read the file now. It is also read by itself, as soon as it has changed."""

    permission_classes = [StaffOnly]

    @extend_schema(request=None, responses={200: CacheStateSerializer, **problem(409)})
    def post(self, request: Request) -> Response:
        return Response(CacheStateSerializer(asdict(reload_configuration())).data)


def _body(configuration: Config) -> dict[str, Any]:
    """Return the configuration with paths as they are in the end: the environment goes before the file."""
    paths = {name: str(root(name)) for name in type(configuration.paths).model_fields}
    return configuration.model_dump(mode="json") | {"paths": paths}


def _nested(error: ConfigInvalid) -> dict[str, Any]:
    """Return the faults as a serializer would: each under the names that lead to it."""
    tree: dict[str, Any] = {}
    for place, text in error.errors:
        node = tree
        for part in place:
            node = node.setdefault(str(part), {})
        node.setdefault(api_settings.NON_FIELD_ERRORS_KEY, []).append(text)
    return tree
