from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from albums import links
from albums.models import Album, Image
from imagehub import storage
from imagehub.api.serializers import StrictModelSerializer, StrictSerializer


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
    """An image: its file, how it was made, and where it came from."""

    loras = UsedLoraSerializer(many=True, read_only=True)
    source = ImageSourceSerializer(source="*", read_only=True)
    scheduler = NamedOrNullField(read_only=True, allow_null=True, help_text="null: the model's own.")

    class Meta:
        model = Image
        fields = [
            "id", "name", "storage_name", "file_url", "thumbnail_url", "width", "height", "size_bytes", "format",
            "visibility", "prompt", "negative_prompt", "seed", "steps", "guidance_scale", "scheduler",
            "base_model", "loras", "source", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class StoragePathField(serializers.CharField):
    def to_representation(self, value: str) -> str:
        return str(storage.root() / value)


@extend_schema_serializer(component_name="Image")
class StaffImageSerializer(ImageSerializer):
    """An image: its file, how it was made, and where it came from. Staff are also told who owns it and where it lies."""

    # Not marked as read-only: in the schema they would count as always present.
    storage_path = StoragePathField(source="storage_name", required=False, help_text="Staff only.")
    owner = serializers.CharField(
        source="owner.username", allow_null=True, required=False, help_text="Staff only."
    )

    class Meta(ImageSerializer.Meta):
        fields = [*ImageSerializer.Meta.fields, "storage_path", "owner"]


class AlbumSerializer(StrictModelSerializer):
    """An album. Its images are listed by ``/api/images?album=``.

    Expects what :func:`albums.api.previews.attach_previews` leaves on the row.
    """

    image_count = serializers.IntegerField(
        read_only=True, help_text="How many of its images the caller may see."
    )
    cover = ImagePreviewSerializer(source="visible_cover", read_only=True, allow_null=True)
    preview_images = ImagePreviewSerializer(many=True, read_only=True, help_text="The first few.")

    class Meta:
        model = Album
        fields = [
            "id", "name", "description", "kind", "visibility", "cover", "image_count", "preview_images",
            "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class ThumbnailQuerySerializer(StrictSerializer):
    size = serializers.IntegerField(
        required=False,
        help_text="The longest side in pixels, one of the configured sizes. Default: the middle one.",
    )
