from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from albums import links
from albums.models import Album, Image, Visibility
from albums.models.images import LONGEST_PROMPT
from generation.models import MAX_SEED, GenerationJob, SeedMode
from generation.services.stacks import MAX_ADAPTERS
from imagehub.api.jobs import JobSerializer
from imagehub.api.serializers import (
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictIntegerField,
    StrictPrimaryKeyRelatedField,
    StrictSerializer,
)
from imagehub.config import get_config
from training.api.base_models import BaseModelChoiceSerializer
from training.models import LARGEST_ADAPTER_WEIGHT, SIDE_GRID, Adapter
from training.pipelines.schedulers import SCHEDULERS

DEFAULT_STRENGTH = 0.75


class LoraChoiceSerializer(StrictSerializer):
    """One adapter of a stack."""

    id = StrictPrimaryKeyRelatedField(queryset=Adapter.objects.enabled())
    weight = StrictFloatField(
        min_value=-LARGEST_ADAPTER_WEIGHT,
        max_value=LARGEST_ADAPTER_WEIGHT,
        required=False,
        help_text="Default: the adapter's own.",
    )


class ParametersSerializer(BaseModelChoiceSerializer):
    """How pictures are made. What is left out comes from the base model and the configuration."""

    negative_prompt = StrictCharField(max_length=LONGEST_PROMPT, required=False, allow_blank=True)
    seed = StrictIntegerField(min_value=0, max_value=MAX_SEED, required=False)
    seed_mode = StrictChoiceField(choices=SeedMode.choices, required=False, default=SeedMode.INCREMENT)
    steps = StrictIntegerField(required=False)
    width = StrictIntegerField(required=False)
    height = StrictIntegerField(required=False)
    guidance_scale = StrictFloatField(required=False, min_value=0)
    scheduler = StrictChoiceField(choices=sorted(SCHEDULERS), required=False, allow_null=True)
    loras = LoraChoiceSerializer(many=True, required=False, max_length=MAX_ADAPTERS)
    album = StrictPrimaryKeyRelatedField(queryset=Album.objects.all(), required=False, allow_null=True)
    visibility = StrictChoiceField(choices=Visibility.choices, required=False)

    def validate_negative_prompt(self, value: str) -> str:
        return self._at_most(value, get_config().generation.max_prompt_length)

    def validate_steps(self, value: int) -> int:
        limits = get_config().generation.steps
        return self._in_range(value, limits.minimum, limits.maximum)

    def validate_width(self, value: int) -> int:
        return self._side(value)

    def validate_height(self, value: int) -> int:
        return self._side(value)

    def validate_guidance_scale(self, value: float) -> float:
        return self._in_range(value, 0, get_config().generation.guidance_scale_maximum)

    def validate_loras(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ids = [lora["id"].pk for lora in value]
        twice = {
            index: {"id": [ErrorDetail("This adapter is named twice.", code="duplicate")]}
            for index, pk in enumerate(ids)
            if pk in ids[:index]
        }
        if twice:
            raise serializers.ValidationError(twice)
        return value

    @staticmethod
    def _at_most(value: str, length: int) -> str:
        if len(value) > length:
            raise serializers.ValidationError(f"It has at most {length} characters.", code="max_length")
        return value

    @staticmethod
    def _in_range(value: Any, minimum: float, maximum: float) -> Any:
        if not minimum <= value <= maximum:
            raise serializers.ValidationError(
                f"It lies between {minimum:g} and {maximum:g}.", code="out_of_range"
            )
        return value

    def _side(self, value: int) -> int:
        limits = get_config().generation.side
        self._in_range(value, limits.minimum, limits.maximum)
        if value % SIDE_GRID:
            raise serializers.ValidationError(f"It is a multiple of {SIDE_GRID}.", code="not_a_multiple")
        return value


class GenerateSerializer(ParametersSerializer):
    """The body of ``POST /api/generate``."""

    prompt = StrictCharField(max_length=LONGEST_PROMPT)
    name = StrictCharField(max_length=200, required=False, help_text="What its pictures are called.")
    n = StrictIntegerField(min_value=1, required=False, default=1)
    init_image = StrictPrimaryKeyRelatedField(
        queryset=Image.objects.live(), required=False, allow_null=True, help_text="What it starts from."
    )
    strength = StrictFloatField(
        min_value=0,
        max_value=1,
        required=False,
        allow_null=True,
        help_text=f"How much of `init_image` is made anew. Default: {DEFAULT_STRENGTH:g}.",
    )

    def validate_prompt(self, value: str) -> str:
        return self._at_most(value, get_config().generation.max_prompt_length)

    def validate_n(self, value: int) -> int:
        return self._in_range(value, 1, get_config().generation.images_per_job)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("init_image") is not None:
            if attrs.get("strength") is None:
                attrs["strength"] = DEFAULT_STRENGTH
        elif attrs.get("strength") is not None:
            message = ErrorDetail(
                "It says how far to go from `init_image`, which is not there.", "no_init_image"
            )
            raise serializers.ValidationError({"strength": [message]})
        return super().validate(attrs)


class JobImageSerializer(serializers.ModelSerializer):
    """One picture of a job."""

    file_url = serializers.SerializerMethodField()
    thumbnail_url = serializers.SerializerMethodField()

    class Meta:
        model = Image
        fields = ["id", "file_url", "thumbnail_url"]

    def get_file_url(self, image: Image) -> str:
        return links.file_url(image.pk)

    def get_thumbnail_url(self, image: Image) -> str:
        return links.thumbnail_url(image.pk)


class GenerationJobSerializer(JobSerializer):
    """A generation job, with its parameters and the pictures it has made so far."""

    base_model = serializers.CharField(source="base_model.name", read_only=True)
    scheduler = serializers.SerializerMethodField()
    images = serializers.SerializerMethodField()

    class Meta(JobSerializer.Meta):
        model = GenerationJob
        fields = [
            *JobSerializer.Meta.fields,
            "name", "prompt", "negative_prompt", "seed", "seed_mode", "steps", "width", "height",
            "guidance_scale", "scheduler", "base_model", "loras", "init_image", "strength", "n", "album",
            "visibility", "images", "set_run", "set_index", "retry_of",
        ]  # fmt: skip
        read_only_fields = fields

    def get_scheduler(self, job: GenerationJob) -> str | None:
        return job.scheduler or None

    @extend_schema_field(JobImageSerializer(many=True))
    def get_images(self, job: GenerationJob) -> list[dict[str, Any]]:
        images = self.context["images"].get(job.pk, [])
        return JobImageSerializer(images, many=True).data
