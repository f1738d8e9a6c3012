"""Where an image comes from, what has come of it, and how it is made again."""

import uuid
from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from albums.image_lineage import image_node
from albums.lineage import Edge, Lineage, Node, trace
from albums.models import Image
from generation.api.serializers import GenerateSerializer
from generation.services.recall import recall
from imagehub.api.permissions import StaffOnly, StaffOrReadOnly
from imagehub.api.schema import problem


class LineageNodeSerializer(serializers.Serializer):
    """A thing that took part."""

    key = serializers.CharField(help_text="What the edges call it: its kind and id.")
    kind = serializers.CharField(
        help_text="`image`, `generation_job`, `base_model`, `adapter` and what other apps add."
    )
    id = serializers.CharField()
    label = serializers.CharField()
    url = serializers.CharField(allow_null=True)
    details = serializers.DictField(help_text="What else is known, by kind; of jobs only staff are told.")


class LineageEdgeSerializer(serializers.Serializer):
    """That one thing has come of another."""

    origin = serializers.CharField(help_text="The key of a node.")
    result = serializers.CharField(help_text="The key of a node.")
    role = serializers.CharField(help_text="`made`, `used`, `started_from`, `tried_again`.")
    details = serializers.DictField()


class LineageSerializer(serializers.Serializer):
    """A part of the graph of where things come from."""

    root = serializers.CharField(help_text="The key of the image that was asked about.")
    nodes = LineageNodeSerializer(many=True)
    edges = LineageEdgeSerializer(many=True)
    truncated = serializers.BooleanField(help_text="There is more: an answer has at most 500 nodes.")


class LineageView(APIView):
    """What an image came from."""

    permission_classes = [StaffOrReadOnly]
    forwards = False

    @extend_schema(operation_id="images_lineage", responses=LineageSerializer)
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        """Show the job, base model, adapters and pictures that an image was made from, and so on back to the sources.

        Whoever is not staff is shown what he may see anyway, and of a job only that there was one.
        """
        return self._answer(request, pk)

    def _answer(self, request: Request, pk: uuid.UUID) -> Response:
        image = get_object_or_404(Image.objects.reachable_by(request.user), pk=pk)
        start = image_node(image)
        lineage = trace(start, request.user, forwards=self.forwards)
        return Response(_present(start, lineage))


class UsedInView(LineageView):
    """What has come of an image."""

    forwards = True

    @extend_schema(operation_id="images_used_in", responses=LineageSerializer)
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        """Show the jobs that started from an image, the pictures they made, and so on."""
        return self._answer(request, pk)


class RecallView(APIView):
    """How an image was made."""

    permission_classes = [StaffOnly]

    @extend_schema(operation_id="images_recall", responses={200: GenerateSerializer, **problem(422)})
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        """Return the body for `POST /api/generate` that makes the same pixels again.

        422 `not_recallable` names what is not known of it, or not here any more.
        """
        return Response(recall(get_object_or_404(Image.objects.reachable_by(request.user), pk=pk)))


def _present(start: Node, lineage: Lineage) -> dict[str, Any]:
    return {
        "root": str(start.key),
        "nodes": [_node(node) for node in lineage.nodes.values()],
        "edges": [_edge(edge) for edge in lineage.edges],
        "truncated": lineage.is_truncated,
    }


def _node(node: Node) -> dict[str, Any]:
    return {
        "key": str(node.key),
        "kind": node.key.kind,
        "id": node.key.id,
        "label": node.label,
        "url": node.url,
        "details": node.details,
    }


def _edge(edge: Edge) -> dict[str, Any]:
    return {
        "origin": str(edge.origin),
        "result": str(edge.result),
        "role": edge.role,
        "details": edge.details,
    }
