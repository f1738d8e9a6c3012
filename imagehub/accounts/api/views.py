import uuid

from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from imagehub.accounts import services
from imagehub.accounts.api.filters import AuditFilter
from imagehub.accounts.api.serializers import (
    AuditEntrySerializer,
    CreatedTokenSerializer,
    NewTokenSerializer,
    TokenSerializer,
)
from imagehub.accounts.models import ApiToken, AuditEntry
from imagehub.api.permissions import SignedIn, StaffOnly


class TokenViewSet(mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[ApiToken]):
    """Your own API tokens. To make or revoke one with a token, that one needs the scope `admin`."""

    permission_classes = [SignedIn]
    serializer_class = TokenSerializer
    queryset = ApiToken.objects.none()
    keyset_ordering = ("-created_at", "-id")
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[ApiToken]:
        if not self.request.user.is_authenticated:  # the schema asks for it, too
            return super().get_queryset()
        return ApiToken.objects.filter(user=self.request.user)

    @extend_schema(request=NewTokenSerializer, responses={201: CreatedTokenSerializer})
    def create(self, request: Request) -> Response:
        """Make a token. The answer holds its secret, which cannot be had again."""
        body = NewTokenSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        token, secret = services.create_token(request.user, **body.validated_data)
        return Response(
            {**TokenSerializer(token).data, "token": secret},
            status=status.HTTP_201_CREATED,
            headers={"Location": reverse("token-detail", args=[token.pk]), "Cache-Control": "no-store"},
        )

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: uuid.UUID) -> Response:
        """Revoke a token. It stays on the list, and opens nothing any more."""
        services.revoke_token(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)


class AuditViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[AuditEntry]):
    """Who did what, newest first."""

    permission_classes = [StaffOnly]
    queryset = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer
    filterset_class = AuditFilter
    keyset_ordering = ("-at", "-id")
