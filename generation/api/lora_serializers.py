import uuid
from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from albums.api.upload_serializers import FileField
from albums.models import Image
from imagehub import roots
from imagehub.api.serializers import (
    StrictBooleanField,
    StrictCharField,
    StrictFloatField,
    StrictFormSerializer,
    StrictModelSerializer,
    StrictPrimaryKeyRelatedField,
    StrictSerializer,
)
from training.models import LARGEST_ADAPTER_WEIGHT, Adapter
from training.weights.adapters import LONGEST_DESCRIPTION, LONGEST_TRIGGER_WORD, MOST_TRIGGER_WORDS


class AdapterSerializer(StrictModelSerializer):
    """An adapter that requests may name."""

    preview_url = serializers.SerializerMethodField(help_text="null: nothing to show.")

    class Meta:
        model = Adapter
        fields = [
            "id", "name", "architecture", "trigger_words", "default_weight", "rank", "size_bytes",
            "preview_url", "is_enabled", "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_preview_url(self, adapter: Adapter) -> str | None:
        shown: set[uuid.UUID] = self.context["previews"]
        return reverse("lora-preview", args=[adapter.pk]) if adapter.preview_id in shown else None


class AdapterPathField(serializers.CharField):
    def to_representation(self, adapter: Adapter) -> str:  # type: ignore[override]
        return str(roots.models_root() / adapter.source)


@extend_schema_serializer(component_name="Adapter")
class StaffAdapterSerializer(AdapterSerializer):
    """An adapter. Staff are also told whose it is, where it lies, and what its header says."""

    # Not marked as read-only: in the schema they would count as always present.
    description = serializers.CharField(
        required=False, help_text="It may come from the header, and from a stranger. Staff only."
    )
    owner = serializers.CharField(
        source="owner.username", allow_null=True, required=False, help_text="Staff only."
    )
    source = serializers.CharField(  # type: ignore[assignment]
        required=False, help_text="The path under the models root. Staff only."
    )
    path = AdapterPathField(source="*", required=False, help_text="Where it lies. Staff only.")
    sha256 = serializers.CharField(required=False, help_text="Of the whole file. Staff only.")
    layout = serializers.ChoiceField(Adapter.Layout.choices, required=False, help_text="Staff only.")
    alpha = serializers.FloatField(required=False, allow_null=True, help_text="null: the rank. Staff only.")
    targets = serializers.DictField(
        child=serializers.IntegerField(),
        required=False,
        help_text="How many layers of each part it changes. Staff only.",
    )
    base_model_name = serializers.CharField(
        required=False, help_text="What it was trained on, as its header says. Staff only."
    )
    preview = serializers.UUIDField(
        source="preview_id", required=False, allow_null=True, help_text="The image. Staff only."
    )

    class Meta(AdapterSerializer.Meta):
        fields = [
            *AdapterSerializer.Meta.fields,
            "description", "owner", "source", "path", "sha256", "layout", "alpha", "targets", "base_model_name", "preview",
        ]  # fmt: skip


class TriggerWordsField(serializers.ListField):
    def __init__(self, **options: Any) -> None:
        super().__init__(
            child=StrictCharField(max_length=LONGEST_TRIGGER_WORD), max_length=MOST_TRIGGER_WORDS, **options
        )


class AdapterChangesSerializer(StrictSerializer):
    """What may be changed about an adapter."""

    name = StrictCharField(max_length=200)
    description = StrictCharField(max_length=LONGEST_DESCRIPTION, allow_blank=True)
    trigger_words = TriggerWordsField()
    default_weight = StrictFloatField(min_value=-LARGEST_ADAPTER_WEIGHT, max_value=LARGEST_ADAPTER_WEIGHT)
    is_enabled = StrictBooleanField()


class AdapterUploadSerializer(StrictFormSerializer):
    """The form of an import."""

    file = FileField(help_text="A .safetensors file with a LoRA adapter.")
    name = StrictCharField(max_length=200, required=False, help_text="Default: what its header says.")
    description = StrictCharField(max_length=LONGEST_DESCRIPTION, required=False, allow_blank=True)
    trigger_words = StrictCharField(
        max_length=(LONGEST_TRIGGER_WORD + 2) * MOST_TRIGGER_WORDS,
        required=False,
        allow_blank=True,
        help_text="Separated by commas. Default: what its header says.",
    )

    def validate_trigger_words(self, value: str) -> list[str]:
        words = [word.strip() for word in value.split(",") if word.strip()]
        return TriggerWordsField().run_validation(words)


class PreviewSerializer(StrictSerializer):
    """The image that shows what an adapter does."""

    image = StrictPrimaryKeyRelatedField(queryset=Image.objects.live())
