from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from albums.api.image_serializers import NamedOrNullField
from imagehub.api.serializers import (
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictIntegerField,
    StrictModelSerializer,
    StrictSerializer,
)
from training.models import SIDE_GRID, Architecture, BaseModel
from training.pipelines.schedulers import SCHEDULERS
from training.services.base_models import path_of_base_model

KINDS = BaseModel.Kind.choices
NEW_KINDS = [choice for choice in BaseModel.Kind.choices if choice[0] != BaseModel.Kind.BUNDLED]
"""What can be added: what ships with ImageHub is there."""
LARGEST_SIDE = 8192
MOST_STEPS = 1000
WIDEST_GUIDANCE = 30.0


class ArchitectureField(serializers.ChoiceField):
    """A family of networks; none is null."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Architecture.choices, **options)

    def to_representation(self, value: str) -> str | None:
        return value or None


class ModelPathField(serializers.CharField):
    def to_representation(self, model: BaseModel) -> str | None:  # type: ignore[override]
        path = path_of_base_model(model)
        return str(path) if path else None


class BaseModelSerializer(StrictModelSerializer):
    """A base model that requests may name."""

    architecture = ArchitectureField(allow_null=True, read_only=True, help_text="null: nobody could tell.")
    default_scheduler = NamedOrNullField(allow_null=True, read_only=True, help_text="null: the model's own.")

    class Meta:
        model = BaseModel
        fields = [
            "id", "name", "architecture", "default_width", "default_height", "default_steps",
            "default_guidance_scale", "default_scheduler", "is_enabled", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


@extend_schema_serializer(component_name="BaseModel")
class StaffBaseModelSerializer(BaseModelSerializer):
    """A base model. Staff are also told where it lies, and what a look at its files found."""

    # Not marked as read-only: in the schema they would count as always present.
    kind = serializers.ChoiceField(KINDS, required=False, help_text="Staff only.")
    source = serializers.CharField(required=False, help_text="Staff only.")  # type: ignore[assignment]
    path = ModelPathField(
        source="*", required=False, allow_null=True, help_text="On this machine; null: not there. Staff only."
    )
    pipeline = serializers.CharField(
        required=False, help_text="The class of diffusers that loads it. Staff only."
    )
    size_bytes = serializers.IntegerField(required=False, allow_null=True, help_text="Staff only.")
    problem = serializers.CharField(
        required=False, help_text="Why it cannot be used; empty: nothing found. Staff only."
    )
    probed_at = serializers.DateTimeField(required=False, allow_null=True, help_text="Looked at. Staff only.")

    class Meta(BaseModelSerializer.Meta):
        fields = [
            *BaseModelSerializer.Meta.fields,
            "kind", "source", "path", "pipeline", "size_bytes", "problem", "probed_at",
        ]  # fmt: skip


class SideField(StrictIntegerField):
    default_error_messages = {"not_a_multiple": f"It is a multiple of {SIDE_GRID}."}

    def to_internal_value(self, data: Any) -> int:
        value = super().to_internal_value(data)
        if value % SIDE_GRID:
            self.fail("not_a_multiple")
        return value


class BaseModelChangesSerializer(StrictSerializer):
    """What may be changed about a base model."""

    name = serializers.RegexField(r"^[-a-zA-Z0-9_]+\Z", max_length=100, help_text="What requests call it.")
    kind = StrictChoiceField(NEW_KINDS)
    source = StrictCharField(  # type: ignore[assignment]
        max_length=300, help_text="A path under the models root, or a hub id."
    )
    architecture = StrictChoiceField(
        Architecture.choices,
        required=False,
        help_text="Where files are on this machine, what they say holds.",
    )
    default_width = SideField(required=False, min_value=SIDE_GRID, max_value=LARGEST_SIDE)
    default_height = SideField(required=False, min_value=SIDE_GRID, max_value=LARGEST_SIDE)
    default_steps = StrictIntegerField(required=False, min_value=1, max_value=MOST_STEPS)
    default_guidance_scale = StrictFloatField(required=False, min_value=0, max_value=WIDEST_GUIDANCE)
    default_scheduler = StrictCharField(
        max_length=30, required=False, allow_null=True, help_text="null: the model's own."
    )
    is_enabled = StrictBooleanField(required=False)

    def validate_default_scheduler(self, value: str | None) -> str:
        if value is not None and value not in SCHEDULERS:
            raise serializers.ValidationError(f"It is one of: {', '.join(sorted(SCHEDULERS))}.")
        return value or ""

    def validate_name(self, value: str) -> str:
        if not isinstance(self.initial_data["name"], str):
            raise serializers.ValidationError("A string is expected.")
        return value


class NewBaseModelSerializer(BaseModelChangesSerializer):
    """A new base model. Its size is what it was trained on, unless it is said."""
