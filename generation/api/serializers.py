from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from albums import links
from albums.models import Album, Image, Visibility
from generation.engine.schedulers import SCHEDULERS
from generation.models import MAX_SEED, GenerationJob
from imagehub.api.jobs import JobSerializer
from imagehub.api.serializers import (
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictIntegerField,
    StrictPrimaryKeyRelatedField,
    StrictSerializer,
    StrictSlugRelatedField,
)
from imagehub.config import get_config
from training.models import BaseModel

MULTIPLE = 8
"""Sides are multiples of this: the VAE of every supported model shrinks pictures eightfold."""


class GenerateSerializer(StrictSerializer):
    """The body of ``POST /api/generate``. What is left out comes from the base model and the configuration."""

    prompt = StrictCharField(max_length=20_000)
    negative_prompt = StrictCharField(max_length=20_000, required=False, allow_blank=True, default="")
    seed = StrictIntegerField(min_value=0, max_value=MAX_SEED, required=False)
    steps = StrictIntegerField(required=False)
    width = StrictIntegerField(required=False)
    height = StrictIntegerField(required=False)
    guidance_scale = StrictFloatField(required=False, min_value=0)
    scheduler = StrictChoiceField(choices=sorted(SCHEDULERS), required=False, allow_null=True)
    base_model = StrictSlugRelatedField(
        slug_field="name", queryset=BaseModel.objects.enabled(), required=False
    )
    n = StrictIntegerField(min_value=1, required=False, default=1)
    album = StrictPrimaryKeyRelatedField(queryset=Album.objects.all(), required=False, allow_null=True)
    visibility = StrictChoiceField(choices=Visibility.choices, required=False)

    def validate_prompt(self, value: str) -> str:
        return self._at_most(value, get_config().generation.max_prompt_length)

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

    def validate_n(self, value: int) -> int:
        return self._in_range(value, 1, get_config().generation.images_per_job)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "base_model" not in attrs:
            name = get_config().generation.default_model
            attrs["base_model"] = BaseModel.objects.enabled().filter(name=name).first()
            if attrs["base_model"] is None:
                raise serializers.ValidationError(
                    {"base_model": "The default base model is not available: name one."}
                )
        return attrs

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
        if value % MULTIPLE:
            raise serializers.ValidationError(f"It is a multiple of {MULTIPLE}.", code="not_a_multiple")
        return value


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
            "prompt", "negative_prompt", "seed", "steps", "width", "height", "guidance_scale", "scheduler",
            "base_model", "loras", "n", "album", "visibility", "images",
        ]  # fmt: skip
        read_only_fields = fields

    def get_scheduler(self, job: GenerationJob) -> str | None:
        return job.scheduler or None

    @extend_schema_field(JobImageSerializer(many=True))
    def get_images(self, job: GenerationJob) -> list[dict[str, Any]]:
        images = self.context["images"].get(job.pk, [])
        return JobImageSerializer(images, many=True).data
