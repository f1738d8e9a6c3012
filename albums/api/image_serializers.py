from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from albums import links
from albums.models import Image
from albums.models.images import LONGEST_PROMPT
from imagehub import storage
from imagehub.api.serializers import StrictCharField, StrictModelSerializer, StrictSerializer


class ImagePreviewSerializer(StrictModelSerializer):
    """Enough of an image to show it."""

    file_url = serializers.SerializerMethodField()
    thumbnail_url = serializers.SerializerMethodField()

    class Meta:
        model = Image
        fields = ["id", "file_url", "thumbnail_url"]
        read_only_fields = fields

    def get_file_url(self, image: Image) -> str:
        return links.file_url(image.pk)

    def get_thumbnail_url(self, image: Image) -> str:
        return links.thumbnail_url(image.pk)


class ImageSourceSerializer(StrictSerializer):
    """What made or fetched an image."""

    kind = serializers.ChoiceField(Image.SourceKind.choices, source="source_kind")
    id = serializers.UUIDField(source="source_id", allow_null=True)


class UsedLoraSerializer(StrictSerializer):
    """An adapter as it was used. Where its file lies is nobody's business."""

    id = serializers.CharField(allow_null=True)
    name = serializers.CharField(allow_null=True)
    weight = serializers.FloatField(allow_null=True)


class NamedOrNullField(serializers.CharField):
    """A name; none is null."""

    def to_representation(self, value: str) -> str | None:
        return value or None


class ImageSerializer(ImagePreviewSerializer):
    """An image: its file, how it was made, and where it came from.

    The fields declare it; :meth:`to_representation` writes it by hand, because for a page of them field by field costs
    more than everything else about the request.
    """

    loras = UsedLoraSerializer(many=True, read_only=True)
    source = ImageSourceSerializer(source="*", read_only=True)
    scheduler = NamedOrNullField(read_only=True, allow_null=True, help_text="null: the model's own.")
    placeholder = NamedOrNullField(
        read_only=True, allow_null=True, help_text="A BlurHash to show until the picture is there."
    )

    class Meta:
        model = Image
        fields = [
            "id", "name", "storage_name", "file_url", "thumbnail_url", "width", "height", "size_bytes", "format",
            "visibility", "nsfw", "starred", "rating", "prompt", "negative_prompt", "seed", "steps",
            "guidance_scale", "scheduler", "base_model", "loras", "source", "placeholder", "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    def to_representation(self, image: Image) -> dict[str, Any]:
        return {
            "id": str(image.pk),
            "name": image.name,
            "storage_name": image.storage_name,
            "file_url": links.file_url(image.pk),
            "thumbnail_url": links.thumbnail_url(image.pk),
            "width": image.width,
            "height": image.height,
            "size_bytes": image.size_bytes,
            "format": image.format,
            "visibility": image.visibility,
            "nsfw": image.nsfw,
            "starred": image.starred,
            "rating": image.rating,
            "prompt": image.prompt,
            "negative_prompt": image.negative_prompt,
            "seed": image.seed,
            "steps": image.steps,
            "guidance_scale": image.guidance_scale,
            "scheduler": image.scheduler or None,
            "base_model": image.base_model,
            "loras": [_used_lora(lora) for lora in image.loras],
            "source": {"kind": image.source_kind, "id": image.source_id and str(image.source_id)},
            "placeholder": image.placeholder or None,
            "created_at": as_time(image.created_at),
        }


class StoragePathField(serializers.CharField):
    def to_representation(self, value: str) -> str:
        return storage.location_of(value)


@extend_schema_serializer(component_name="Image")
class StaffImageSerializer(ImageSerializer):
    """An image: its file, how it was made, and where it came from. Staff are also told who owns it and where it lies."""

    # Not marked as read-only: in the schema they would count as always present.
    storage_path = StoragePathField(source="storage_name", required=False, help_text="Staff only.")
    owner = serializers.CharField(
        source="owner.username", allow_null=True, required=False, help_text="Staff only."
    )
    original_name = serializers.CharField(
        required=False, help_text="The name of the file it came from. Staff only."
    )
    deleted_at = serializers.DateTimeField(
        allow_null=True, required=False, help_text="In the trash since. Staff only."
    )

    class Meta(ImageSerializer.Meta):
        fields = [*ImageSerializer.Meta.fields, "storage_path", "owner", "original_name", "deleted_at"]

    def to_representation(self, image: Image) -> dict[str, Any]:
        return {
            **super().to_representation(image),
            "storage_path": storage.location_of(image.storage_name),
            "owner": image.owner.username if image.owner else None,
            "original_name": image.original_name,
            "deleted_at": image.deleted_at and as_time(image.deleted_at),
        }


class ImageChangeSerializer(StrictModelSerializer):
    """What people may change about an image; what is left out stays."""

    name = StrictCharField(required=False, max_length=200)
    prompt = StrictCharField(required=False, allow_blank=True, max_length=LONGEST_PROMPT)
    negative_prompt = StrictCharField(required=False, allow_blank=True, max_length=LONGEST_PROMPT)

    class Meta:
        model = Image
        fields = ["visibility", "nsfw", "starred", "rating", "name", "prompt", "negative_prompt"]


class ThumbnailQuerySerializer(StrictSerializer):
    size = serializers.IntegerField(
        required=False,
        help_text="The longest side in pixels, one of the configured sizes. Default: the middle one.",
    )


def _used_lora(lora: dict[str, Any]) -> dict[str, Any]:
    """Name an adapter. Whatever else is noted about it, such as its path, is nobody's business."""
    return {"id": lora.get("id"), "name": lora.get("name"), "weight": lora.get("weight")}


def as_time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
