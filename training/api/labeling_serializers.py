from typing import Any

from rest_framework import serializers

from albums.models import Album
from imagehub.api.jobs import JobSerializer
from imagehub.api.serializers import (
    StrictBooleanField,
    StrictChoiceField,
    StrictPrimaryKeyRelatedField,
    StrictSerializer,
    StrictUUIDField,
)
from training.models import LabelingItem, LabelingJob

MOST_IDS = 10_000
"""That one request names. The configuration may allow fewer in one job."""


class NewLabelingSerializer(StrictSerializer):
    """What to say, and of which images: those of an album, or those that are named."""

    task = StrictChoiceField(choices=LabelingJob.Task.choices)
    album = StrictPrimaryKeyRelatedField(queryset=Album.objects.all(), required=False)
    image_ids = serializers.ListField(
        child=StrictUUIDField(), required=False, min_length=1, max_length=MOST_IDS
    )
    overwrite = StrictBooleanField(
        required=False, default=False, help_text="Whether what people have said gives way to the model."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("album" in attrs) == ("image_ids" in attrs):
            raise serializers.ValidationError(
                {"image_ids": "Name an album or images, and not both."}, code="invalid"
            )
        return attrs


class LabelingCountsSerializer(serializers.Serializer):
    """How many images are in which state."""

    waiting = serializers.IntegerField()
    labeled = serializers.IntegerField()
    kept = serializers.IntegerField(help_text="Left as people said.")
    failed = serializers.IntegerField()


class LabelingJobSerializer(JobSerializer):
    """A labeling job. The context also holds ``counts``, by the ids of jobs."""

    task = serializers.CharField(read_only=True)
    model = serializers.CharField(read_only=True)
    counts = serializers.SerializerMethodField()

    class Meta(JobSerializer.Meta):
        model = LabelingJob
        fields = [*JobSerializer.Meta.fields, "task", "model", "overwrite", "total", "counts"]
        read_only_fields = fields

    def get_counts(self, job: LabelingJob) -> LabelingCountsSerializer:
        return self.context["counts"][job.pk]


class LabelingItemSerializer(serializers.ModelSerializer):
    """One image of a labeling job."""

    image = serializers.UUIDField(source="image_id", allow_null=True, help_text="null: it was deleted.")

    class Meta:
        model = LabelingItem
        fields = ["position", "image", "state", "detail", "confidence"]
        read_only_fields = fields
