from typing import Any

from django.db import transaction
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from generation import services
from generation.api import idempotency
from generation.api.serializers import GenerateSerializer, GenerationJobSerializer
from generation.api.views import serialize
from generation.models import GenerationJob
from imagehub.accounts.models import Scope
from imagehub.api.permissions import StaffOnly
from imagehub.api.schema import problem
from imagehub.api.throttling import RateLimitedMixin
from imagehub.config import get_config


class GenerateView(RateLimitedMixin, APIView):
    """Make pictures of a prompt."""

    permission_classes = [StaffOnly]
    required_scope = Scope.GENERATE
    rate_limit = "generate"

    @extend_schema(
        operation_id="generate",
        request=GenerateSerializer,
        responses={
            201: GenerationJobSerializer,
            200: GenerationJobSerializer,
            **problem(409),
            **problem(422),
        },
        parameters=[idempotency.PARAMETER],
    )
    def post(self, request: Request) -> Response:
        key = idempotency.idempotency_of(request)
        if earlier := services.find_earlier(GenerationJob, owner=request.user, **key):
            return self._respond(earlier, is_new=False)
        serializer = GenerateSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        job = self._job(request, serializer.validated_data, key)
        with transaction.atomic():  # a job that is refused for its rate was never there
            job, is_new = services.submit_generation(job)
            if is_new:
                self.charge(job.n)
        return self._respond(job, is_new=is_new)

    @staticmethod
    def _respond(job: GenerationJob, *, is_new: bool) -> Response:
        return Response(
            serialize([job])[0],
            status=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK,
            headers={"Location": reverse("job-detail", args=[job.pk])},
        )

    @staticmethod
    def _job(request: Request, data: dict[str, Any], key: dict[str, str]) -> GenerationJob:
        return GenerationJob(
            owner=request.user,
            prompt=data["prompt"],
            name=data.get("name", ""),
            n=data["n"],
            init_image=data.get("init_image"),
            strength=data.get("strength"),
            **parameters(data),
            **key,
        )


def parameters(
    data: dict[str, Any], *, width: int | None = None, height: int | None = None
) -> dict[str, Any]:
    """Return the columns of a job that a request decides, with those values that it leaves out.

    Sides that are left out are ``width`` and ``height``, or else the base model's.

    Raises:
        AdapterIncompatible: an adapter does not fit the base model.
    """
    model = data["base_model"]
    chosen = [(lora["id"], lora.get("weight")) for lora in data.get("loras", [])]
    return {
        "base_model": model,
        "negative_prompt": data.get("negative_prompt", ""),
        "seed": data.get("seed", services.draw_seed()),
        "seed_mode": data["seed_mode"],
        "steps": data.get("steps", model.default_steps),
        "width": data.get("width", width or model.default_width),
        "height": data.get("height", height or model.default_height),
        "guidance_scale": data.get("guidance_scale", model.default_guidance_scale),
        # null asks for the model's own, whatever is the default: so a recalled request makes the same pixels.
        "scheduler": data.get("scheduler", model.default_scheduler) or "",
        "loras": services.stack_adapters(chosen, model),
        "album": data.get("album"),
        "visibility": data.get("visibility", get_config().generation.default_visibility),
    }
