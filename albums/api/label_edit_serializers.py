from typing import Any

from rest_framework import serializers

from albums.models import Album, LabelEdit
from albums.models.labels import LONGEST_CAPTION
from albums.services.label_edits import MOST_IMAGES
from imagehub.api.serializers import (
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictModelSerializer,
    StrictPrimaryKeyRelatedField,
    StrictSerializer,
    StrictUUIDField,
)


class NewLabelEditSerializer(StrictSerializer):
    """What to change, and in which images: those of an album, or those that are named."""

    album = StrictPrimaryKeyRelatedField(queryset=Album.objects.all(), required=False)
    image_ids = serializers.ListField(
        child=StrictUUIDField(), required=False, min_length=1, max_length=MOST_IMAGES
    )
    action = StrictChoiceField(choices=LabelEdit.Action.choices)
    text = StrictCharField(
        max_length=LONGEST_CAPTION, trim_whitespace=False, help_text="With the spaces that it is to have."
    )
    replacement = StrictCharField(
        max_length=LONGEST_CAPTION,
        trim_whitespace=False,
        allow_blank=True,
        required=False,
        default="",
        help_text="Of `replace`. Empty: what is found is taken out.",
    )
    preview = StrictBooleanField(
        required=False, default=False, help_text="Only tell what would be done, and change nothing."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("album" in attrs) == ("image_ids" in attrs):
            raise serializers.ValidationError(
                {"image_ids": "Name an album or images, and not both."}, code="invalid"
            )
        return attrs


class ExampleSerializer(serializers.Serializer):
    """What it does to one image."""

    image = serializers.UUIDField()
    before = serializers.CharField(allow_null=True)
    after = serializers.CharField(allow_null=True)


class LabelEditPreviewSerializer(serializers.Serializer):
    """What an edit would do."""

    images = serializers.IntegerField()
    changed = serializers.IntegerField()
    skipped = serializers.DictField(
        child=serializers.IntegerField(),
        help_text="How many images it cannot change, by why: `no_caption`, `blank`, `max_length`.",
    )
    examples = ExampleSerializer(many=True)


class LabelEditSerializer(StrictModelSerializer):
    """A change of the labels of many images."""

    owner = serializers.CharField(source="owner.username", allow_null=True, read_only=True)
    undone_by = serializers.CharField(source="undone_by.username", allow_null=True, read_only=True)

    class Meta:
        model = LabelEdit
        fields = [
            "id", "action", "text", "replacement", "images", "changed", "owner", "created_at", "undone_at",
            "undone_by",
        ]  # fmt: skip
        read_only_fields = fields


class DoneLabelEditSerializer(LabelEditSerializer):
    """A change of the labels of many images, and what it did. The context holds ``done``."""

    skipped = serializers.SerializerMethodField()
    examples = serializers.SerializerMethodField()

    class Meta(LabelEditSerializer.Meta):
        fields = [*LabelEditSerializer.Meta.fields, "skipped", "examples"]
        read_only_fields = fields

    def get_skipped(self, edit: LabelEdit) -> dict[str, int]:
        return dict(self.context["done"].skipped)

    def get_examples(self, edit: LabelEdit) -> list[dict[str, str | None]]:
        return ExampleSerializer(self.context["done"].examples, many=True).data


class UndoneSerializer(serializers.Serializer):
    """What came of taking an edit back."""

    restored = serializers.IntegerField(help_text="How many labels say again what they said before.")
    kept = serializers.IntegerField(help_text="How many say something else by now, and stay as they are.")
