"""Views that exist only to be tested. Their models are the ones this package has at hand."""

from typing import Any

import django_filters
from django.contrib import admin
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation, ValidationError
from django.db import IntegrityError, OperationalError, transaction
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.urls import include, path
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework import exceptions, mixins, serializers, viewsets
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView

from imagehub.accounts.models import ApiToken
from imagehub.api import problems
from imagehub.api.permissions import StaffOrReadOnly
from imagehub.api.serializers import (
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictIntegerField,
    StrictModelSerializer,
    StrictSerializer,
)
from imagehub.api.throttling import RateLimitedMixin
from imagehub.errors import Conflict, ImageHubError, Invalid, NotReady
from imagehub.jobs.tests.factories import ErrandFactory


class AlreadyFinished(Conflict):
    code = "already_finished"
    title = "The job has finished"


FAILURES: dict[str, Exception] = {
    "invalid": Invalid("It is too long.", pointer="/config/rank", code="too_long"),
    "conflict": AlreadyFinished("It finished at noon."),
    "not-ready": NotReady("No worker is alive."),
    "other": ImageHubError("It cannot be done."),
    "integrity": IntegrityError("UNIQUE constraint failed: secret_table.secret_column"),
    "database-away": OperationalError("connection to secret.host failed"),
    "model-validation": ValidationError({"name": ValidationError("Too short.", code="min_length")}),
    "404": Http404("No SecretModel matches the given query."),
    "404-drf": exceptions.NotFound("The secret row 17 is private."),
    "403": PermissionDenied("secret reason"),
    "403-drf": exceptions.PermissionDenied("Only the owner may do this."),
    "too-big": RequestDataTooBig("secret setting exceeded"),
    "suspicious": SuspiciousOperation("secret suspicion"),
    "unreadable": UnreadablePostError("secret socket"),
    "throttled": exceptions.Throttled(wait=11.2),
    "bug": RuntimeError("secret internals"),
    "surrogate": exceptions.ValidationError({"name": "“\ud800” is not known."}),
    "nested": exceptions.ValidationError(
        {
            "loras": [{}, {"weight": ["Too large.", "Too heavy."]}],
            "tags": {3: ["Too long."]},
            "a/b~c": ["Odd."],
            "non_field_errors": ["They do not fit together."],
        }
    ),
    "nested-whole": exceptions.ValidationError({"loras": {"non_field_errors": ["Not a list."]}}),
    "whole": exceptions.ValidationError("They do not fit together."),
    "many": exceptions.ValidationError({f"field{n}": ["No."] for n in range(1000)}),
}


class FailureView(APIView):
    permission_classes = [AllowAny]
    schema = None

    def get(self, request: Request, kind: str) -> Response:
        raise FAILURES[kind]


class LoraSerializer(StrictSerializer):
    name = StrictCharField()
    weight = StrictFloatField(required=False, min_value=-2, max_value=2)


class BodySerializer(StrictSerializer):
    id = serializers.IntegerField(read_only=True)
    text = StrictCharField(required=False, min_length=2, max_length=10)
    count = StrictIntegerField(required=False, min_value=1, max_value=100)
    scale = StrictFloatField(required=False, min_value=0, max_value=30)
    flag = StrictBooleanField(required=False)
    color = StrictChoiceField(choices=["red", "blue"], required=False)
    loras = LoraSerializer(many=True, required=False)
    now = serializers.HiddenField(default="now")


class BodyView(APIView):
    """Answer with what was understood."""

    permission_classes = [StaffOrReadOnly]

    @extend_schema(request=BodySerializer, responses=BodySerializer)
    def post(self, request: Request) -> Response:
        serializer = BodySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response({key: value for key, value in serializer.validated_data.items() if key != "now"})


class OpenBodyView(BodyView):
    permission_classes = [AllowAny]


class TokenSerializer(StrictModelSerializer):
    class Meta:
        model = ApiToken
        fields = ["id", "name"]


class TokenFilter(django_filters.FilterSet):
    created = django_filters.IsoDateTimeFromToRangeFilter("created_at")
    user = django_filters.NumberFilter()

    class Meta:
        model = ApiToken
        fields: tuple[str, ...] = ()


class TokenViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    queryset = ApiToken.objects.all()
    serializer_class = TokenSerializer
    filterset_class = TokenFilter
    permission_classes = [StaffOrReadOnly]
    lookup_value_converter = "uuid"
    keyset_ordering: Any = ("-created_at", "-id")
    orderings: Any = {"newest": ("-created_at", "-id"), "name": ("name", "-created_at"), "alone": ("name",)}


class PlainTokenViewSet(TokenViewSet):
    """Without filters and without orders to choose from."""

    filterset_class = None
    orderings = None


def plain_bug(request: HttpRequest, kind: str) -> HttpResponse:
    raise FAILURES[kind]


class LimitedView(RateLimitedMixin, APIView):
    """Starts an errand that costs what the body says, and fails where it says so."""

    permission_classes = [StaffOrReadOnly]
    rate_limit = "labeling"

    @extend_schema(request=BodySerializer, responses={201: None})
    def post(self, request: Request) -> Response:
        serializer = BodySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        with transaction.atomic():
            ErrandFactory(owner=request.user)
            self.charge(serializer.validated_data.get("count", 1))
            if kind := serializer.validated_data.get("text"):
                raise FAILURES[kind]
        return Response(status=201)

    @extend_schema(responses=None)
    def get(self, request: Request) -> Response:
        return Response()


class EarlyLimitedView(RateLimitedMixin, APIView):
    """Charges before it reads the body, as uploads do."""

    permission_classes = [StaffOrReadOnly]
    rate_limit = "upload"
    charges_before_body = True

    @extend_schema(request=BodySerializer, responses={201: None})
    def post(self, request: Request) -> Response:
        BodySerializer(data=request.data).is_valid(raise_exception=True)
        return Response(status=422 if request.data.get("flag") else 201)

    @extend_schema(responses=None)
    def get(self, request: Request) -> Response:
        return Response()


router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("tokens", TokenViewSet, basename="token")
router.register("plain", PlainTokenViewSet, basename="plain")

api = [
    path("failures/<kind>", FailureView.as_view()),
    path("raw-failures/<kind>", plain_bug),
    path("body", BodyView.as_view()),
    path("limited", LimitedView.as_view()),
    path("early-limited", EarlyLimitedView.as_view()),
    path("open-body", OpenBodyView.as_view()),
    path("schema/", SpectacularAPIView.as_view()),
    *router.urls,
]

urlpatterns = [
    path("api/", include(api)),
    path("pages/<kind>", plain_bug),
    path("", include("albums.urls")),  # where the page that answers 404 leads to
    path("admin/", admin.site.urls),
]

handler400 = problems.bad_request
handler403 = problems.permission_denied
handler404 = problems.not_found
handler500 = problems.server_error
