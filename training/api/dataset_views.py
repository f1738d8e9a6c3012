from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from albums.models import Album, AlbumQuerySet
from imagehub.accounts.models import Scope
from imagehub.api.permissions import StaffOnly, StaffOrReadOnly
from imagehub.api.schema import problem
from training.api.dataset_serializers import (
    PreflightSerializer,
    TrainingAlbumSerializer,
    TrainingSourceSerializer,
)
from training.services.datasets import albums_named, readiness_of
from training.services.preflight import preflight
from training.services.recipes import resolve_recipe


class TrainingAlbumViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Album]):
    """Albums, and how far each is from being trained on. Everybody sees public ones with their public images."""

    permission_classes = [StaffOrReadOnly]
    serializer_class = TrainingAlbumSerializer
    keyset_ordering = ("-created_at", "-id")

    def get_queryset(self) -> AlbumQuerySet:
        return Album.objects.visible_to(self.request.user)

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.get_queryset())
        context = {"readiness": readiness_of(page, request.user)}
        return self.get_paginated_response(TrainingAlbumSerializer(page, many=True, context=context).data)


class PreflightView(APIView):
    """What a run would be like."""

    permission_classes = [StaffOnly]
    required_scope = Scope.TRAIN

    @extend_schema(
        operation_id="training_preflight",
        request=TrainingSourceSerializer,
        responses={200: PreflightSerializer, **problem(422)},
    )
    def post(self, request: Request) -> Response:
        """Report on a run before it is made: what keeps it from being worth it, and what it would take.

        Changes nothing. Files that nobody has looked at yet are looked at in the background, and a later report knows of
        them; until then it has the warning `not_inspected`.
        """
        body = TrainingSourceSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        base_model, trigger_word = data["base_model"], data.get("trigger_word", "")
        albums = albums_named(data["album_ids"])
        recipe = resolve_recipe(data.get("config", {}), base_model, albums=albums, trigger_word=trigger_word)
        report = preflight(albums, recipe, base_model=base_model, trigger_word=trigger_word)
        return Response(PreflightSerializer(report).data)
