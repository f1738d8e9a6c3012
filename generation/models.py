from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from albums.models import Album, Visibility
from imagehub.jobs.models import Job
from training.models import BaseModel

MAX_SEED = 2**31 - 1


class GenerationJob(Job):
    """A request for one or more pictures of one prompt. Every value is resolved when the row is made."""

    prompt = models.TextField()
    negative_prompt = models.TextField(blank=True)
    seed = models.PositiveIntegerField(
        validators=[MaxValueValidator(MAX_SEED)], help_text="Of the first picture; each next one adds 1."
    )
    steps = models.PositiveSmallIntegerField(validators=[MinValueValidator(1)])
    width = models.PositiveSmallIntegerField()
    height = models.PositiveSmallIntegerField()
    guidance_scale = models.FloatField()
    scheduler = models.CharField(max_length=30, blank=True, help_text="Empty: the model's own.")
    base_model = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="generation_jobs")
    loras = models.JSONField(default=list, blank=True)
    n = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    visibility = models.CharField(max_length=10, choices=Visibility, default=Visibility.PRIVATE)
    album = models.ForeignKey(
        Album, null=True, blank=True, on_delete=models.SET_NULL, related_name="generation_jobs"
    )

    idempotency_key = models.CharField(max_length=200, blank=True)
    body_digest = models.CharField(
        max_length=64, blank=True, help_text="SHA-256 of the request it came from."
    )

    class Meta(Job.Meta):
        constraints = [
            *Job.Meta.constraints,
            models.UniqueConstraint(
                name="generationjob_one_per_idempotency_key",
                fields=["owner", "idempotency_key"],
                condition=~Q(idempotency_key=""),
            ),
            models.CheckConstraint(
                name="generationjob_size_positive",
                condition=Q(width__gte=8, height__gte=8),
            ),
        ]

    def sensitive_texts(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.prompt, self.negative_prompt)))

    def image_seed(self, index: int) -> int:
        """Return the seed of one picture of the job; it wraps round at the largest seed."""
        return (self.seed + index) % (MAX_SEED + 1)
