from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from albums.models import Label, LabelKind, LabelOrigin, LabelRevision
from albums.models.labels import LONGEST_CAPTION
from imagehub.api.serializers import (
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictModelSerializer,
    StrictSerializer,
)


class LabelSerializer(StrictModelSerializer):
    """A caption or a tag, and who says so: people, an import, a page or a model."""

    model = serializers.CharField(read_only=True, help_text="Of a model: its name and version.")

    class Meta:
        model = Label
        fields = ["id", "kind", "text", "origin", "model", "confidence", "created_at"]
        read_only_fields = fields


@extend_schema_serializer(component_name="Label")
class StaffLabelSerializer(LabelSerializer):
    """A caption or a tag, and who says so: people, an import, a page or a model. Staff are also told who wrote it."""

    # Not marked as read-only: in the schema they would count as always present.
    created_by = serializers.CharField(
        source="created_by.username", allow_null=True, required=False, help_text="Staff only."
    )
    updated_at = serializers.DateTimeField(required=False, help_text="Staff only.")

    class Meta(LabelSerializer.Meta):
        fields = [*LabelSerializer.Meta.fields, "created_by", "updated_at"]


class NewLabelSerializer(StrictSerializer):
    """Something to say about an image. It is a person who says it, unless a model is named."""

    kind = StrictChoiceField(choices=LabelKind.choices)
    text = StrictCharField(max_length=LONGEST_CAPTION, help_text="A tag has at most 100 characters.")
    origin = StrictChoiceField(
        choices=[LabelOrigin.HUMAN.value, LabelOrigin.MODEL.value],
        required=False,
        help_text="Default: `model` where a model is named, otherwise `human`.",
    )
    model = StrictCharField(
        max_length=200, required=False, help_text="Name and version of the model that says so."
    )
    confidence = StrictFloatField(
        min_value=0, max_value=1, required=False, allow_null=True, help_text="Of a model."
    )
    replace_human = StrictBooleanField(
        required=False, default=False, help_text="Whether what people said gives way to the model."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs.setdefault("origin", LabelOrigin.MODEL if attrs.get("model") else LabelOrigin.HUMAN)
        if attrs["origin"] == LabelOrigin.HUMAN:
            for name in ("model", "confidence", "replace_human"):
                if attrs.get(name):
                    raise serializers.ValidationError({name: "Only a model says this."}, code="invalid")
        return attrs


class ChangedLabelSerializer(StrictSerializer):
    """What a label says from now on. It is a person who says it."""

    text = StrictCharField(max_length=LONGEST_CAPTION)


class LabelRevisionSerializer(StrictModelSerializer):
    """What a label said until somebody replaced or removed it."""

    changed_by = serializers.CharField(source="changed_by.username", allow_null=True, read_only=True)
    model = serializers.CharField(read_only=True)

    class Meta:
        model = LabelRevision
        fields = [
            "label_id", "change", "kind", "text", "origin", "model", "confidence", "written_at", "changed_at",
            "changed_by",
        ]  # fmt: skip
        read_only_fields = fields


class TagCountSerializer(StrictSerializer):
    label_text = serializers.CharField()
    count = serializers.IntegerField()


class CoverageSerializer(StrictSerializer):
    """Shares of the images, in percent."""

    labels_percent = serializers.FloatField()
    manual_percent = serializers.FloatField()
    caption_percent = serializers.FloatField()


class LabelAnalyticsSerializer(StrictSerializer):
    """How well an album is labelled."""

    album_id = serializers.UUIDField()
    image_count = serializers.IntegerField()
    labels_total = serializers.IntegerField()
    labels_by_type = serializers.DictField(child=serializers.IntegerField())
    labels_by_origin = serializers.DictField(child=serializers.IntegerField())
    images_with_labels = serializers.IntegerField()
    images_with_manual_labels = serializers.IntegerField()
    images_with_captions = serializers.IntegerField()
    unlabeled_images = serializers.IntegerField()
    average_labels_per_image = serializers.FloatField()
    coverage = CoverageSerializer()
    top_tags = TagCountSerializer(many=True)
    last_labeled_at = serializers.DateTimeField(allow_null=True)
