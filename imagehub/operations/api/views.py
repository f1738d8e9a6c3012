from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError
from drf_spectacular.utils import OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers, status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

import imagehub
from imagehub.api.problems import DATABASE_RETRY_SECONDS
from imagehub.operations import health

_QUEUE = inline_serializer(
    "QueueCounts", {"queued": serializers.IntegerField(), "running": serializers.IntegerField()}
)


class LiveClusterSerializer(serializers.Serializer):
    """A live cluster: what its machine has, and how its caches fare."""

    cluster = serializers.CharField()
    host = serializers.CharField()
    pid = serializers.IntegerField()
    facts = serializers.DictField()


class HealthView(APIView):
    """How the system is, for people and dashboards. Staff also read what each sentence is about."""

    permission_classes = [AllowAny]

    @extend_schema(
        responses=inline_serializer(
            "Health",
            {
                "status": serializers.ChoiceField(health.STATUSES),
                "version": serializers.CharField(),
                "degraded": serializers.ListField(child=serializers.CharField()),
                "queues": serializers.DictField(child=_QUEUE),
                "details": serializers.DictField(child=serializers.CharField(), required=False),
                "workers": LiveClusterSerializer(many=True, required=False),
            },
        )
    )
    def get(self, request: Request) -> Response:
        problems = health.problems()
        body = {
            "status": "degraded" if problems else "ok",
            "version": imagehub.__version__,
            "degraded": sorted(problems),
            "queues": {} if "database" in problems else health.queues(),
        }
        if request.user.is_authenticated and request.user.is_staff:
            body["details"] = problems
            body["workers"] = [] if "database" in problems else health.workers()
        return Response(body)

    def perform_authentication(self, request: Request) -> None:
        """Find out who asks, if the database lets it: a health check that breaks with the database is none."""
        try:
            super().perform_authentication(request)
        except DatabaseError:
            request.user = AnonymousUser()


class LiveView(APIView):
    """The process answers. It says nothing about anything behind it."""

    permission_classes = [AllowAny]
    authentication_classes = []

    @extend_schema(
        responses=inline_serializer("Live", {"status": serializers.CharField()}),
    )
    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


class ReadyView(APIView):
    """Everything that requests and jobs need is there: 200, or 503 with the names of what is not."""

    permission_classes = [AllowAny]
    authentication_classes = []

    _BODY = inline_serializer(
        "Ready",
        {
            "status": serializers.ChoiceField(health.STATUSES),
            "degraded": serializers.ListField(child=serializers.CharField()),
        },
    )

    @extend_schema(responses={200: _BODY, 503: OpenApiResponse(_BODY, description="Something is missing.")})
    def get(self, request: Request) -> Response:
        problems = health.problems()
        is_ready = problems.keys() <= health.NOT_NEEDED_TO_SERVE
        return Response(
            {"status": "degraded" if problems else "ok", "degraded": sorted(problems)},
            status=status.HTTP_200_OK if is_ready else status.HTTP_503_SERVICE_UNAVAILABLE,
            headers=None if is_ready else {"Retry-After": str(DATABASE_RETRY_SECONDS)},
        )
