import uuid
from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from albums.models import may_see_everything
from generation.api.model_serializers import (
    BaseModelChangesSerializer,
    BaseModelSerializer,
    NewBaseModelSerializer,
    StaffBaseModelSerializer,
)
from generation.api.registry_filters import BaseModelFilter
from imagehub.accounts import audit
from imagehub.accounts.models import Scope
from imagehub.api.permissions import StaffOrReadOnly
from imagehub.api.schema import problem
from training import services
from training.models import BaseModel, BaseModelQuerySet


@extend_schema_view(
    list=extend_schema(responses=StaffBaseModelSerializer(many=True)),
    retrieve=extend_schema(responses=StaffBaseModelSerializer),
)
class BaseModelViewSet(mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[BaseModel]):
    """The base models that pictures are generated with. The public is shown those that are enabled."""

    permission_classes = [StaffOrReadOnly]
    required_scope = Scope.TRAIN
    filterset_class = BaseModelFilter
    keyset_ordering = ("name", "id")
    lookup_value_converter = "uuid"

    def get_queryset(self) -> BaseModelQuerySet:
        return BaseModel.objects.shown_to(sees_everything=may_see_everything(self.request.user))

    def get_serializer_class(self) -> type[BaseSerializer[BaseModel]]:
        return StaffBaseModelSerializer if may_see_everything(self.request.user) else BaseModelSerializer

    @extend_schema(request=NewBaseModelSerializer, responses={201: StaffBaseModelSerializer, **problem(409)})
    def create(self, request: Request) -> Response:
        """Add a base model whose weights lie under the models root, or on the hub.

        Its files are looked at, and not loaded: what they are is filled in, and what cannot be used is refused. Files
        that are not on this machine may be on another one; `problem` says that they are missing.
        """
        body = NewBaseModelSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        data: dict[str, Any] = body.validated_data
        keeps_size = bool({"default_width", "default_height"}.intersection(data))
        model = services.add_base_model(BaseModel(**data), keeps_size=keeps_size)
        return Response(
            StaffBaseModelSerializer(model).data,
            status=status.HTTP_201_CREATED,
            headers={"Location": reverse("model-detail", args=[model.pk])},
        )

    @extend_schema(
        request=BaseModelChangesSerializer, responses={200: StaffBaseModelSerializer, **problem(409)}
    )
    def partial_update(self, request: Request, pk: uuid.UUID) -> Response:
        """Change a base model. What is left out stays as it is; a new source is looked at."""
        model = self.get_object()
        body = BaseModelChangesSerializer(data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        return Response(
            StaffBaseModelSerializer(services.update_base_model(model, **body.validated_data)).data
        )

    @extend_schema(responses={204: None, **problem(409)})
    def destroy(self, request: Request, pk: uuid.UUID) -> Response:
        """Forget a base model that no job names. Its files stay."""
        services.delete_base_model(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=None, responses={200: StaffBaseModelSerializer, **problem(409)})
    @action(detail=True, methods=["post"])
    def probe(self, request: Request, pk: uuid.UUID) -> Response:
        """Look at the files of a base model again."""
        model = services.probe_base_model(self.get_object())
        audit.record("basemodel.probe", model, after={"problem": model.problem})
        return Response(StaffBaseModelSerializer(model).data)
