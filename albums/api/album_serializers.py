from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import AbstractUser, AnonymousUser
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import empty

from albums.api.image_serializers import ImagePreviewSerializer, as_time
from albums.api.previews import Previews
from albums.models import Album, Image
from albums.models.albums import LONGEST_SET_PROMPT
from albums.set_templates.validation import (
    LARGEST_WEIGHT,
    LONGEST_COLUMN,
    LONGEST_LORA_ID,
    MAX_COLUMNS,
    MAX_LORAS,
    MAX_ROWS,
)
from imagehub.api.serializers import (
    StrictCharField,
    StrictFloatField,
    StrictIntegerField,
    StrictModelSerializer,
    StrictPrimaryKeyRelatedField,
    StrictSerializer,
    StrictUUIDField,
    json_type,
)

KINDS = Album.Kind.choices
"""For the settings of the schema, where it gets a name."""

PREVIEWED_ROWS = 5
MOST_IMAGES = 1000
MOST_ALBUMS = 100
SIDE = {"min_value": 8, "max_value": 8192}

SET_FIELDS = [
    "is_set_template", "set_rows", "base_prompt", "prompt_template", "style_suffix", "example_theme",
    "negative_prompt", "width", "height", "loras",
]  # fmt: skip


class SetRowField(serializers.DictField):
    """One row of a set: strings by the names of their columns."""

    child = StrictCharField(allow_blank=True, max_length=LONGEST_SET_PROMPT)

    default_error_messages = {
        "not_a_dict": "An object is expected, not {found}.",
        "too_many": f"It has at most {MAX_COLUMNS} columns.",
        "no_name": f"A column has a name of 1 to {LONGEST_COLUMN} characters.",
    }

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, Mapping):
            self.fail("not_a_dict", found=json_type(data))
        if len(data) > MAX_COLUMNS:
            self.fail("too_many")
        for name in data:
            if not 1 <= len(name) <= LONGEST_COLUMN or not name.isprintable():
                self.fail("no_name")
        return super().to_internal_value(data)


class AlbumLoraSerializer(StrictSerializer):
    """An adapter that a set is made with. Whether it exists is looked at when the set is made."""

    id = StrictCharField(max_length=LONGEST_LORA_ID)
    weight = StrictFloatField(
        min_value=-LARGEST_WEIGHT, max_value=LARGEST_WEIGHT, required=False, default=1.0
    )


@extend_schema_field(AlbumLoraSerializer)
class AlbumLoraField(serializers.Field):
    """An adapter, which is never partial: not even when other fields of its album are left out."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        serializer = AlbumLoraSerializer(data=data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def to_representation(self, lora: dict[str, Any]) -> dict[str, Any]:
        return AlbumLoraSerializer(lora).data


class AlbumSerializer(StrictModelSerializer):
    """An album. Its images are listed by ``/api/images?album=``.

    Expects their ``previews`` in the context, and the row to have the columns of ``columns_for``.
    """

    # The fields describe the schema. A page of albums is written by hand, which takes a third of the time.

    image_count = serializers.IntegerField(
        read_only=True, help_text="How many of its images the caller is shown."
    )
    cover = ImagePreviewSerializer(
        read_only=True,
        allow_null=True,
        help_text="The image that was chosen, or the first one; none that the caller may not see.",
    )
    preview_images = ImagePreviewSerializer(many=True, read_only=True, help_text="The first few.")
    set_rows = serializers.ListField(
        child=serializers.DictField(child=serializers.CharField()), read_only=True
    )
    loras = AlbumLoraSerializer(many=True, read_only=True)
    template_item_count = serializers.IntegerField(read_only=True, help_text="How many rows the set has.")
    template_items_preview = serializers.ListField(
        child=serializers.DictField(child=serializers.CharField()),
        read_only=True,
        help_text="The first five rows.",
    )
    lora_count = serializers.IntegerField(read_only=True)

    class Meta:
        model = Album
        fields = [
            "id", "name", "description", "kind", "visibility", "cover", "image_count", "preview_images",
            *SET_FIELDS, "template_item_count", "template_items_preview", "lora_count", "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    @staticmethod
    def columns_for(user: AbstractUser | AnonymousUser) -> list[str]:
        """Return what has to be read of an album to show it to somebody."""
        return [
            "id", "name", "description", "kind", "visibility", "cover_id", *SET_FIELDS, "created_at",
            *Previews.columns_for(user),
        ]  # fmt: skip

    def to_representation(self, album: Any) -> dict[str, Any]:
        previews = self.context["previews"]
        return {
            "id": str(album.id),
            "name": album.name,
            "description": album.description,
            "kind": album.kind,
            "visibility": album.visibility,
            "cover": previews.cover_of(album),
            "image_count": previews.count_of(album),
            "preview_images": previews.of(album),
            "is_set_template": album.is_set_template,
            "set_rows": album.set_rows,
            "base_prompt": album.base_prompt,
            "prompt_template": album.prompt_template,
            "style_suffix": album.style_suffix,
            "example_theme": album.example_theme,
            "negative_prompt": album.negative_prompt,
            "width": album.width,
            "height": album.height,
            "loras": [{"id": lora.get("id"), "weight": lora.get("weight")} for lora in album.loras],
            "template_item_count": len(album.set_rows),
            "template_items_preview": album.set_rows[:PREVIEWED_ROWS],
            "lora_count": len(album.loras),
            "created_at": as_time(album.created_at),
        }


class AlbumInputSerializer(StrictModelSerializer):
    """What can be said of an album when it is made."""

    set_rows = serializers.ListField(
        child=SetRowField(),
        max_length=MAX_ROWS,
        required=False,
        help_text="One object of strings for each picture.",
    )
    loras = serializers.ListField(child=AlbumLoraField(), max_length=MAX_LORAS, required=False)

    class Meta:
        model = Album
        fields = ["name", "description", "kind", "visibility", *SET_FIELDS]
        extra_kwargs = {
            "description": {"max_length": 10_000},
            "width": SIDE,
            "height": SIDE,
        }


class AlbumChangesSerializer(AlbumInputSerializer):
    """What can be changed of an album."""

    cover = StrictPrimaryKeyRelatedField(
        queryset=Image.objects.live(), allow_null=True, required=False, help_text="One of its images."
    )

    class Meta(AlbumInputSerializer.Meta):
        fields = [*AlbumInputSerializer.Meta.fields, "cover"]


class RowsByIdField(serializers.ListField):
    """Ids of rows, each of which is there: one that is not refuses them all, and is named by its place.

    Answers with the rows in the order given.
    """

    child = StrictUUIDField()

    default_error_messages = {"does_not_exist": "There is no such object."}

    def __init__(self, *, queryset: Any, **options: Any) -> None:
        self.queryset = queryset
        super().__init__(**options)

    def run_validation(self, data: Any = empty) -> list[Any]:
        ids = super().run_validation(data)  # and as few as there may be
        rows = self.queryset.all().in_bulk(ids)
        message = self.error_messages["does_not_exist"]
        missing = {
            index: [ErrorDetail(message, code="does_not_exist")]
            for index, pk in enumerate(ids)
            if pk not in rows
        }
        if missing:
            raise serializers.ValidationError(missing)
        return [rows[pk] for pk in ids]

    def to_representation(self, rows: Any) -> list[str]:
        return [str(row.pk) for row in rows]


class AlbumImagesSerializer(StrictSerializer):
    """Images, in an order. One that is unknown or in the trash refuses all."""

    image_ids = RowsByIdField(queryset=Image.objects.live().only("id"), min_length=1, max_length=MOST_IMAGES)


class MoveImagesSerializer(AlbumImagesSerializer):
    """Where to put images of an album."""

    before = StrictPrimaryKeyRelatedField(
        queryset=Image.objects.live().only("id"),
        allow_null=True,
        required=False,
        default=None,
        help_text="The image of the album that comes behind them; without one they go to the end.",
    )


class CoverSerializer(StrictSerializer):
    """Which image stands for an album."""

    image = StrictPrimaryKeyRelatedField(
        queryset=Image.objects.live().only("id"),
        allow_null=True,
        help_text="One of the album's images. null: the first one stands for it.",
    )


class MergeSerializer(StrictSerializer):
    """Which albums become part of another one."""

    albums = RowsByIdField(
        queryset=Album.objects.all(), min_length=1, max_length=MOST_ALBUMS, help_text="They are deleted."
    )


class CloneSerializer(StrictSerializer):
    """What the copy is called: “Copy of” the other one, unless it is said."""

    name = StrictCharField(max_length=200, required=False)


class AddedSerializer(StrictSerializer):
    """What has become of images that were to be added."""

    added = StrictIntegerField(help_text="How many are new here.")
    already = StrictIntegerField(help_text="How many were here, and stay where they are.")


class RemovedSerializer(StrictSerializer):
    """What has become of images that were to be taken out."""

    removed = StrictIntegerField(help_text="How many were here.")
