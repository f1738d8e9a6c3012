"""How runs, and what comes out of them, look in the API."""

import uuid

from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from imagehub import roots
from imagehub.api.jobs import JobSerializer
from imagehub.api.serializers import (
    StrictCharField,
    StrictChoiceField,
    StrictIntegerField,
    StrictSerializer,
    ToldInPart,
)
from imagehub.operations.api.purge_views import PurgeResultSerializer, PurgeSerializer
from training.api.dataset_serializers import TrainingSourceSerializer
from training.models import Adapter, Checkpoint, Sample, TrainingRun
from training.services.run_folders import checkpoint_path, folder_of
from training.trainer.checkpoint_files import folder_name

LONGEST_NAME = 200
LONGEST_DESCRIPTION = 5000
GREATEST_PRIORITY = 100
STOP_MODES = TrainingRun.StopMode.choices


class TrainedDatasetSerializer(serializers.Serializer):
    """What a run learns from, as it was when the run was made."""

    id = serializers.UUIDField()
    sha256 = serializers.CharField(help_text="Of its manifest.")
    albums = serializers.ListField(
        child=serializers.DictField(), help_text="Id and name of each, as it was called."
    )


class TrainingRunSerializer(ToldInPart, JobSerializer):
    """A run. Everybody is told that it is there, how far it is, its losses and dates; staff everything."""

    name = serializers.CharField(read_only=True)
    base_model = serializers.CharField(source="base_model.name", read_only=True)
    dataset = TrainedDatasetSerializer(read_only=True)
    adapter = serializers.UUIDField(source="adapter_id", allow_null=True, read_only=True)
    cloned_from = serializers.UUIDField(source="cloned_from_id", allow_null=True, read_only=True)
    config = serializers.DictField(read_only=True, help_text="The recipe, every value resolved.")
    facts = serializers.DictField(
        read_only=True, help_text="Device, versions, peak memory, seconds of each phase, what memory forced."
    )
    estimate = serializers.DictField(read_only=True, help_text="What was expected when it was made.")
    dataset_path = serializers.SerializerMethodField(help_text="The folder of its pictures.")
    output_path = serializers.SerializerMethodField(help_text="The folder of everything of it.")
    log_path = serializers.SerializerMethodField()
    final_checkpoint = serializers.SerializerMethodField(
        help_text="The file of its adapter, or the folder of its latest checkpoint; null: there is neither."
    )

    class Meta(JobSerializer.Meta):
        model = TrainingRun
        public_fields = [
            "id", "kind", "status", "name", "description", "progress", "step", "total_steps", "eta_seconds",
            "training_loss", "validation_loss", "created_at", "queued_at", "started_at", "finished_at",
            "duration_seconds",
        ]  # fmt: skip
        fields = [
            *(name for name in JobSerializer.Meta.fields if name != "preview"),
            "name", "description", "training_loss", "validation_loss", "base_loss", "base_model", "trigger_word", "config",
            "config_sha256", "dataset", "adapter", "cloned_from", "phase", "stop_mode", "resumes", "facts", "estimate",
            "dataset_path", "output_path", "log_path", "final_checkpoint", "purged_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_dataset_path(self, run: TrainingRun) -> str:
        return str(folder_of(run).images)

    def get_output_path(self, run: TrainingRun) -> str:
        return str(folder_of(run).root)

    def get_log_path(self, run: TrainingRun) -> str:
        return str(folder_of(run).log)

    def get_final_checkpoint(self, run: TrainingRun) -> str | None:
        if run.adapter is not None:
            return str(roots.models_root() / run.adapter.source)
        latest: dict[uuid.UUID, int] = self.context["latest_checkpoints"]
        return str(folder_of(run).checkpoints / folder_name(latest[run.pk])) if run.pk in latest else None


class NewRunSerializer(TrainingSourceSerializer):
    """A run to be made."""

    name = StrictCharField(max_length=LONGEST_NAME, help_text="Everybody may read it.")
    description = StrictCharField(
        max_length=LONGEST_DESCRIPTION, required=False, allow_blank=True, help_text="Everybody may read it."
    )


class RunChangesSerializer(StrictSerializer):
    """What may be changed of a run."""

    name = StrictCharField(max_length=LONGEST_NAME)
    description = StrictCharField(max_length=LONGEST_DESCRIPTION, allow_blank=True)
    priority = StrictIntegerField(
        min_value=-GREATEST_PRIORITY, max_value=GREATEST_PRIORITY, help_text="Higher goes first."
    )


class CancelRunSerializer(StrictSerializer):
    """How a run is to end."""

    mode = StrictChoiceField(
        choices=STOP_MODES,
        default=TrainingRun.StopMode.SAVE,
        help_text="`save`: after the step at hand, and it can go on from there. `discard`: at once.",
    )


class ResumeRunSerializer(StrictSerializer):
    """How a run is to go on."""

    steps = StrictIntegerField(
        required=False, min_value=1, max_value=1_000_000, help_text="In all; default: as many as before."
    )


class CloneRunSerializer(StrictSerializer):
    """What is different about a clone."""

    name = StrictCharField(max_length=LONGEST_NAME, required=False)
    description = StrictCharField(max_length=LONGEST_DESCRIPTION, required=False, allow_blank=True)


class MetricsQuerySerializer(StrictSerializer):
    points = serializers.IntegerField(
        min_value=1, max_value=2000, default=500, help_text="How many points of each curve there may be."
    )
    since = serializers.IntegerField(
        min_value=-1, max_value=2**31 - 1, default=-1, help_text="Only what was measured after this step."
    )


class MetricPointSerializer(ToldInPart):
    """A step, or a stretch of them: then with its last step, and means."""

    step = serializers.IntegerField()
    loss = serializers.FloatField()
    loss_min = serializers.FloatField()
    loss_max = serializers.FloatField()
    learning_rate = serializers.FloatField(allow_null=True)
    grad_norm = serializers.FloatField(allow_null=True, help_text="Before clipping.")
    seconds = serializers.FloatField(allow_null=True, help_text="That the step took.")

    class Meta:
        public_fields = ["step", "loss", "loss_min", "loss_max"]


class ValidationPointSerializer(serializers.Serializer):
    step = serializers.IntegerField(help_text="0: before the first step.")
    loss = serializers.FloatField()


class MetricsSerializer(serializers.Serializer):
    """What a run has measured so far."""

    status = serializers.CharField()
    step = serializers.IntegerField()
    total_steps = serializers.IntegerField()
    train = MetricPointSerializer(many=True)
    validation = ValidationPointSerializer(many=True, help_text="By pictures that are kept apart.")


class LogQuerySerializer(StrictSerializer):
    tail = serializers.IntegerField(min_value=1, max_value=5000, default=200, help_text="How many lines.")


class RunLogSerializer(serializers.Serializer):
    """The end of what the program of a run printed, without colours, overwritten lines and secrets."""

    lines = serializers.ListField(child=serializers.CharField())
    log_path = serializers.CharField()


class SampleSerializer(serializers.ModelSerializer):
    """A picture that a run made on the way."""

    file_url = serializers.SerializerMethodField()

    class Meta:
        model = Sample
        fields = ["id", "step", "index", "prompt", "seed", "width", "height", "file_url", "created_at"]
        read_only_fields = fields

    def get_file_url(self, sample: Sample) -> str:
        return reverse("training-sample-file", args=[sample.run_id, sample.pk])


class PromotionSerializer(serializers.Serializer):
    """How far a checkpoint is from being an adapter."""

    state = serializers.ChoiceField(Checkpoint.Promotion.choices, source="promotion")
    problem = serializers.CharField(source="promotion_problem", help_text="Why it failed; else empty.")
    adapter = serializers.UUIDField(source="adapter_id", allow_null=True)


class CheckpointSerializer(serializers.ModelSerializer):
    """A state of a run that it can go on from."""

    promotion = PromotionSerializer(source="*", read_only=True)
    path = serializers.SerializerMethodField(help_text="Its folder; null: its files were deleted.")

    class Meta:
        model = Checkpoint
        fields = [
            "id", "step", "sha256", "size_bytes", "validation_loss", "is_best", "is_pinned", "promotion", "path",
            "created_at", "removed_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_path(self, checkpoint: Checkpoint) -> str | None:
        return None if checkpoint.removed_at else str(checkpoint_path(checkpoint))


class PromoteSerializer(StrictSerializer):
    name = StrictCharField(
        max_length=LONGEST_NAME, required=False, help_text="Of the adapter. Default: the run's, and the step."
    )


class TrainedAdapterSerializer(ToldInPart, serializers.ModelSerializer):
    """An adapter that came out of a run."""

    training_run = serializers.UUIDField(source="training_run_id")
    training_loss = serializers.FloatField(source="training_run.training_loss", allow_null=True)
    validation_loss = serializers.FloatField(source="training_run.validation_loss", allow_null=True)
    trigger_word = serializers.SerializerMethodField(help_text="Empty: it has none.")
    step = serializers.IntegerField(source="training_step", allow_null=True)
    download_url = serializers.SerializerMethodField()
    path = serializers.SerializerMethodField()

    class Meta:
        model = Adapter
        public_fields = [
            "id", "name", "size_bytes", "training_run", "training_loss", "validation_loss", "trigger_word", "created_at",
        ]  # fmt: skip
        fields = [*public_fields, "description", "step", "is_enabled", "download_url", "path"]
        read_only_fields = fields

    def get_trigger_word(self, adapter: Adapter) -> str:
        return next(iter(adapter.trigger_words), "")

    def get_download_url(self, adapter: Adapter) -> str:
        return reverse("training-lora-download", args=[adapter.pk])

    def get_path(self, adapter: Adapter) -> str:
        return str(roots.models_root() / adapter.source)


class FiguresSerializer(serializers.Serializer):
    """All runs together."""

    total_runs = serializers.IntegerField()
    pending_runs = serializers.IntegerField()
    queued_runs = serializers.IntegerField()
    running_runs = serializers.IntegerField()
    completed_runs = serializers.IntegerField()
    failed_runs = serializers.IntegerField()
    cancelled_runs = serializers.IntegerField()
    success_rate = serializers.FloatField(
        allow_null=True,
        help_text="Percent of those completed or failed that were completed; null: there are none.",
    )


class RecipeSchemaSerializer(serializers.Serializer):
    """What a recipe may say."""

    schema = extend_schema_field(OpenApiTypes.OBJECT)(serializers.DictField)(help_text="As JSON schema.")
    bounds = serializers.DictField(
        child=serializers.DictField(child=serializers.IntegerField()),
        help_text="What this server allows of it: `minimum` and `maximum`.",
    )
    presets = serializers.DictField(child=serializers.DictField(), help_text="Starting points, for `config`.")


class TrainingPurgeResultSerializer(PurgeResultSerializer):
    runs = serializers.IntegerField(required=False, help_text="Of which nothing is left but the row.")
    checkpoints = serializers.IntegerField(required=False)
    cached_files = serializers.IntegerField(required=False)
    labeled = serializers.IntegerField(
        required=False, help_text="Images of which it is forgotten what became of them in labeling jobs."
    )
    strays = serializers.IntegerField(required=False, help_text="Folders that belong to no run: they stay.")
    kept = serializers.ListField(
        child=serializers.DictField(),
        required=False,
        help_text="Runs of which checkpoints are kept, the first hundred.",
    )
    runs_kept = serializers.IntegerField(required=False, help_text="How many these are.")


class TrainingPurgeSerializer(PurgeSerializer):
    """One clearing out of the files of runs, and what came of it."""

    result = TrainingPurgeResultSerializer(read_only=True)
