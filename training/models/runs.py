"""Training runs, and what comes out of them."""

from typing import Self

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from imagehub.identifiers import new_id
from imagehub.jobs.models import Job
from training.models.datasets import Dataset
from training.models.registry import Adapter, BaseModel

LONGEST_NAME = 200


class TrainingRun(Job):
    """The training of one adapter. Everything that decides its result is resolved when the row is made."""

    RESUMABLE = True

    class StopMode(models.TextChoices):
        """What to do with what was learned when somebody cancels a run."""

        SAVE = "save", "Stop after this step and save"
        DISCARD = "discard", "Stop at once"

    name = models.CharField(max_length=LONGEST_NAME)
    description = models.TextField(blank=True)
    base_model = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="training_runs")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="runs")
    trigger_word = models.CharField(max_length=100, blank=True)
    config = models.JSONField(help_text="The recipe, every value resolved: see training.recipe.")
    config_sha256 = models.CharField("SHA-256 of the recipe", max_length=64, editable=False)
    adapter = models.ForeignKey(
        Adapter,
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="What came out of it.",
    )
    cloned_from = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="clones"
    )

    phase = models.CharField(max_length=20, blank=True, editable=False, help_text="What it is busy with.")
    stop_mode = models.CharField(max_length=10, choices=StopMode, default=StopMode.SAVE, editable=False)
    resumes = models.PositiveSmallIntegerField(
        default=0, editable=False, help_text="How often it went on from a checkpoint after a failure."
    )
    training_loss = models.FloatField(null=True, blank=True, editable=False)
    validation_loss = models.FloatField(null=True, blank=True, editable=False, help_text="The best so far.")
    base_loss = models.FloatField(
        null=True, blank=True, editable=False, help_text="The validation loss before the first step."
    )
    facts = models.JSONField(
        default=dict,
        blank=True,
        editable=False,
        help_text="Device, versions, peak memory, speed, changes that memory forced, seconds of each phase.",
    )
    estimate = models.JSONField(
        default=dict, blank=True, editable=False, help_text="What was expected when it was made."
    )
    purged_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When its files were deleted."
    )

    class Meta(Job.Meta):
        pass

    def __str__(self) -> str:
        return self.name

    def sensitive_texts(self) -> tuple[str, ...]:
        """Return the trigger word and the prompts of its sample pictures."""
        prompts = self.config.get("sample_prompts") or []
        return tuple(text for text in (self.trigger_word, *prompts) if text)

    @property
    def folder(self) -> str:
        """The name of its folder under the training root."""
        return f"runs/{self.pk}"


class CheckpointQuerySet(models.QuerySet["Checkpoint"]):
    """Reading checkpoints, and locking those that are about to be changed."""

    def awaited(self) -> Self:
        """Those of which somebody waits for an adapter."""
        return self.filter(promotion__in=Checkpoint.AWAITED)

    def needed(self) -> Self:
        """Those whose files somebody still wants: they are pinned, or about to become an adapter."""
        return self.filter(Q(is_pinned=True) | Q(promotion__in=Checkpoint.AWAITED))

    def locked_in_order(self) -> Self:
        """Lock these in the order of their keys, as whoever changes several of them does, and return them.

        Raises:
            TransactionManagementError: there is no transaction.
        """
        keys = self.order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True)
        return self.filter(pk__in=list(keys))


class Checkpoint(models.Model):
    """A state of a run that it can go on from, in a folder of its own: see ``training.trainer.checkpoints``."""

    class Promotion(models.TextChoices):
        """How far it is from being an adapter."""

        NONE = "none", "Nobody asked"
        WAITING = "waiting", "Waiting"
        WORKING = "working", "In the making"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    AWAITED = (Promotion.WAITING, Promotion.WORKING)

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="checkpoints", db_index=False)
    step = models.PositiveIntegerField()
    sha256 = models.CharField("SHA-256", max_length=64, help_text="Of its manifest.")
    size_bytes = models.PositiveBigIntegerField()
    validation_loss = models.FloatField(null=True, blank=True)
    is_best = models.BooleanField(default=False, help_text="Its validation loss is the lowest.")
    is_pinned = models.BooleanField(default=False, help_text="Kept until somebody lets it go.")
    adapter = models.ForeignKey(
        Adapter, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="Made of it."
    )
    promotion = models.CharField(
        max_length=10,
        choices=Promotion,
        default=Promotion.NONE,
        editable=False,
        help_text="How far it is from being an adapter. Done it stays, also when that adapter is deleted.",
    )
    promotion_began_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When a worker began to make it."
    )
    promoted_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When somebody asked for an adapter of it."
    )
    promoted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    promoted_as = models.CharField(
        max_length=LONGEST_NAME, blank=True, help_text="What the adapter is to be called."
    )
    promotion_problem = models.CharField(
        max_length=500, blank=True, help_text="Why no adapter was made of it."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    removed_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When its files were deleted."
    )

    objects = CheckpointQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(name="checkpoint_once_per_step", fields=["run", "step"]),
            models.CheckConstraint(
                name="checkpoint_promotion_known",
                condition=Q(promotion__in=["none", "waiting", "working", "done", "failed"]),
            ),
        ]

    def __str__(self) -> str:
        return f"step {self.step} of {self.run_id}"

    @property
    def folder(self) -> str:
        """The name of its folder in that of the run."""
        return f"checkpoints/step-{self.step:06d}"


class Sample(models.Model):
    """A picture that a run made on the way, to show what it has learned."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="samples", db_index=False)
    step = models.PositiveIntegerField()
    index = models.PositiveSmallIntegerField(help_text="Which of the prompts, from 0.")
    prompt = models.TextField()
    seed = models.PositiveIntegerField()
    file_name = models.CharField(max_length=100, help_text="In the folder of the run.")
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(name="sample_once", fields=["run", "step", "index"])]

    def __str__(self) -> str:
        return f"sample {self.index} at step {self.step} of {self.run_id}"


class MetricPoint(models.Model):
    """What a run measured at one step."""

    class Kind(models.TextChoices):
        TRAIN = "train", "Loss of the batches"
        VALIDATION = "validation", "Loss of the pictures kept apart"

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="metrics", db_index=False)
    kind = models.CharField(max_length=10, choices=Kind)
    step = models.PositiveIntegerField(validators=[MinValueValidator(0)])
    loss = models.FloatField()
    learning_rate = models.FloatField(null=True, blank=True)
    grad_norm = models.FloatField(null=True, blank=True, help_text="Before clipping.")
    seconds = models.FloatField(null=True, blank=True, help_text="That the step took.")

    class Meta:
        constraints = [
            models.UniqueConstraint(name="metricpoint_once", fields=["run", "kind", "step"]),
            models.CheckConstraint(
                name="metricpoint_kind_known", condition=Q(kind__in=["train", "validation"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} loss at step {self.step} of {self.run_id}"
