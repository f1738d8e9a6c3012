from typing import Any, get_args

from rest_framework import serializers

from albums.models import Album
from imagehub.api.serializers import (
    StrictCharField,
    StrictJSONField,
    StrictUUIDField,
)
from training.api.base_models import BaseModelChoiceSerializer
from training.estimates import Basis
from training.models import TrainingRun
from training.services.datasets import Readiness

MOST_ALBUMS = 100
BASES = get_args(Basis)


class TrainingSourceSerializer(BaseModelChoiceSerializer):
    """What is to be learned, and how."""

    album_ids = serializers.ListField(
        child=StrictUUIDField(),
        min_length=1,
        max_length=MOST_ALBUMS,
        help_text="Albums whose captioned images are learned. Each image counts once, in however many of them it is.",
    )
    trigger_word = StrictCharField(
        max_length=TrainingRun._meta.get_field("trigger_word").max_length,
        required=False,
        allow_blank=True,
        help_text="The word that captions use for the subject.",
    )
    config = StrictJSONField(
        required=False,
        help_text="Fields of the recipe; for all else there are defaults that suit the base model.",
    )

    def validate_config(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise serializers.ValidationError("An object is expected.", code="invalid")
        return value


class FindingSerializer(serializers.Serializer):
    """One thing that is wrong, or may be."""

    code = serializers.CharField()
    detail = serializers.CharField()
    pointer = serializers.CharField(
        allow_null=True, help_text="JSON pointer of the field of the request that would change it."
    )
    count = serializers.IntegerField(help_text="How many images it is about.")
    images = serializers.ListField(child=serializers.UUIDField(), help_text="The first 50 of them.")


class DatasetCountsSerializer(serializers.Serializer):
    """How many images of each sort there are."""

    images = serializers.IntegerField()
    captioned = serializers.IntegerField(help_text="Of them, those with a caption, each counted once.")
    usable = serializers.IntegerField(
        help_text="Of them, those that are large enough: what a run would have."
    )
    train = serializers.IntegerField()
    validation = serializers.IntegerField()
    inspected = serializers.IntegerField(help_text="Those whose files have been looked at.")


class BucketSerializer(serializers.Serializer):
    """A size in which pictures are trained."""

    width = serializers.IntegerField()
    height = serializers.IntegerField()
    images = serializers.IntegerField()


class CropSerializer(serializers.Serializer):
    """What is left of a picture that is cropped."""

    image = serializers.UUIDField()
    bucket = serializers.ListField(child=serializers.IntegerField(), help_text="Width and height.")
    box = serializers.ListField(
        child=serializers.FloatField(), help_text="Left, top, right and bottom in the picture's own pixels."
    )
    share = serializers.FloatField(help_text="How much is cut off, from 0 to 1.")


class MemorySerializer(serializers.Serializer):
    """What the memory is for, as calculated, in bytes."""

    weights = serializers.IntegerField()
    adapter = serializers.IntegerField(help_text="With its gradients and the optimizer.")
    activations = serializers.IntegerField()
    rest = serializers.IntegerField(help_text="Libraries and drivers.")


class DiskSerializer(serializers.Serializer):
    """What the disk is for, in bytes."""

    pictures = serializers.IntegerField(help_text="None of it where they can be linked.")
    cache = serializers.IntegerField(help_text="Shared with other runs on the same pictures.")
    checkpoints = serializers.IntegerField()
    samples = serializers.IntegerField()
    export = serializers.IntegerField()
    metrics = serializers.IntegerField()


class EstimateSerializer(serializers.Serializer):
    """What a training is expected to take."""

    device = serializers.CharField(help_text="On what kind of device: `cpu`, `cuda`, `mps`.")
    trainable_parameters = serializers.IntegerField()
    memory_bytes = serializers.IntegerField(help_text="Of the device, at its peak.")
    memory = MemorySerializer()
    memory_basis = serializers.ChoiceField(
        choices=BASES,
        help_text="`calculated`; `corrected` by what others took with the same base model; `measured` of the very same.",
    )
    seconds = serializers.FloatField()
    seconds_per_step = serializers.FloatField()
    time_basis = serializers.ChoiceField(choices=BASES)
    disk_bytes = serializers.IntegerField()
    disk = DiskSerializer()


class PreflightSerializer(serializers.Serializer):
    """What there is to know before a run begins."""

    ready = serializers.SerializerMethodField(help_text="Whether nothing keeps a run from being made.")
    blockers = FindingSerializer(many=True)
    warnings = FindingSerializer(many=True)
    counts = DatasetCountsSerializer()
    buckets = serializers.SerializerMethodField()
    steps_per_epoch = serializers.IntegerField()
    epochs = serializers.FloatField()
    estimate = EstimateSerializer(
        allow_null=True, help_text="None where nobody can tell how large the base model is."
    )
    crops = CropSerializer(many=True, help_text="Of the 50 pictures that lose most, cropped in the middle.")

    def get_ready(self, report: Any) -> bool:
        return not report.blockers

    def get_buckets(self, report: Any) -> list[dict[str, int]]:
        return [
            {"width": width, "height": height, "images": count}
            for (width, height), count in report.buckets.items()
        ]


class TrainingAlbumSerializer(serializers.ModelSerializer):
    """An album, and how far it is from being trained on. The context holds ``readiness``, by the ids of albums."""

    total_images = serializers.SerializerMethodField()
    captioned_images = serializers.SerializerMethodField(help_text="Images with at least one caption.")
    minimum_images = serializers.SerializerMethodField(help_text="So many captioned ones are needed.")
    ready = serializers.SerializerMethodField()

    class Meta:
        model = Album
        fields = [
            "id", "name", "description", "kind", "visibility", "total_images", "captioned_images",
            "minimum_images", "ready", "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_total_images(self, album: Album) -> int:
        return self._readiness(album).total_images

    def get_captioned_images(self, album: Album) -> int:
        return self._readiness(album).captioned_images

    def get_minimum_images(self, album: Album) -> int:
        return self._readiness(album).minimum_images

    def get_ready(self, album: Album) -> bool:
        return self._readiness(album).is_ready

    def _readiness(self, album: Album) -> Readiness:
        return self.context["readiness"][album.pk]
