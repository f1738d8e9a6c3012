import hashlib

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from albums.models import Album, Image, Visibility
from imagehub.identifiers import new_id
from imagehub.jobs.models import Job
from training.models import BaseModel

MAX_SEED = 2**31 - 1
LONGEST_NAME = 200


class SeedMode(models.TextChoices):
    """How the seeds of the pictures of a job, or of the rows of a set, follow from the first one."""

    FIXED = "fixed", "The same for every picture"
    INCREMENT = "increment", "Each next picture adds 1"
    RANDOM = "random", "Drawn anew for each picture, from the first one"


def derive_seed(seed: int, mode: str, index: int) -> int:
    """Return the seed of one of several pictures, counted from 0: the same one whenever it is asked for.

    ``increment`` adds the index and begins again at 0 behind the largest seed; ``random`` takes the first eight
    bytes of SHA-256 of ``"<seed>:<index>"``, modulo 2³¹; the first picture has the seed itself.
    """
    if index == 0 or mode == SeedMode.FIXED:
        return seed
    if mode == SeedMode.INCREMENT:
        return (seed + index) % (MAX_SEED + 1)
    drawn = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") % (MAX_SEED + 1)


class SetRun(models.Model):
    """One making of a set with a theme: a generation job for each of its rows, and an album that fills."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    template = models.ForeignKey(
        Album, null=True, on_delete=models.SET_NULL, related_name="set_runs", help_text="The set."
    )
    album = models.ForeignKey(
        Album, null=True, on_delete=models.SET_NULL, related_name="+", help_text="Where the pictures go."
    )
    theme = models.CharField(max_length=500)
    total = models.PositiveIntegerField(help_text="How many pictures it is to have.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    outcome = models.JSONField(
        null=True,
        editable=False,
        help_text="How its pictures ended, once somebody has looked after the last one; a retry takes it away.",
    )
    retries = models.PositiveIntegerField(
        default=0, db_default=0, editable=False, help_text="How often it got new jobs."
    )

    idempotency_key = models.CharField(max_length=200, blank=True)
    body_digest = models.CharField(
        max_length=64, blank=True, help_text="SHA-256 of the request it came from."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="setrun_one_per_idempotency_key",
                fields=["owner", "idempotency_key"],
                condition=~Q(idempotency_key=""),
            )
        ]
        indexes = [models.Index(fields=["-created_at", "-id"], name="setrun_newest")]

    def __str__(self) -> str:
        return f"set run {self.pk}"


class GenerationJob(Job):
    """A request for one or more pictures of one prompt. Every value is resolved when the row is made."""

    prompt = models.TextField()
    negative_prompt = models.TextField(blank=True)

    SeedMode = SeedMode

    name = models.CharField(max_length=LONGEST_NAME, blank=True, help_text="What its pictures are called.")
    seed = models.PositiveIntegerField(
        validators=[MaxValueValidator(MAX_SEED)], help_text="Of the first picture."
    )
    seed_mode = models.CharField(max_length=10, choices=SeedMode, default=SeedMode.INCREMENT)
    steps = models.PositiveSmallIntegerField(validators=[MinValueValidator(1)])
    width = models.PositiveSmallIntegerField()
    height = models.PositiveSmallIntegerField()
    guidance_scale = models.FloatField()
    scheduler = models.CharField(max_length=30, blank=True, help_text="Empty: the model's own.")
    base_model = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="generation_jobs")
    loras = models.JSONField(
        default=list, blank=True, help_text="Id, name and weight of each adapter, in the order of the stack."
    )
    init_image = models.ForeignKey(
        Image,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="What it starts from.",
    )
    strength = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="How much of the picture it starts from is made anew.",
    )
    n = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    visibility = models.CharField(max_length=10, choices=Visibility, default=Visibility.PRIVATE)
    album = models.ForeignKey(
        Album, null=True, blank=True, on_delete=models.SET_NULL, related_name="generation_jobs"
    )

    set_run = models.ForeignKey(SetRun, null=True, blank=True, on_delete=models.CASCADE, related_name="items")
    set_index = models.PositiveIntegerField(null=True, blank=True, help_text="Of its row in the set, from 0.")
    retry_of = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="retries"
    )
    timings = models.JSONField(
        default=dict,
        blank=True,
        editable=False,
        help_text="Seconds that each phase of the last picture took.",
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
            models.CheckConstraint(
                name="generationjob_set_index_iff_set_run",
                condition=Q(set_run__isnull=True, set_index__isnull=True)
                | Q(set_run__isnull=False, set_index__isnull=False),
            ),
        ]
        indexes = [
            *Job.Meta.indexes,
            models.Index(
                name="generationjob_set_items",
                fields=["set_run", "set_index", "id"],
                condition=Q(set_run__isnull=False),
            ),
        ]

    def sensitive_texts(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.prompt, self.negative_prompt)))

    def image_seed(self, index: int) -> int:
        """Return the seed of one picture of the job: the same one whenever it is asked for."""
        return derive_seed(self.seed, self.seed_mode, index)

    def image_name(self, index: int) -> str:
        """Return what one picture of the job is called: as was asked, or after its base model and seed."""
        if not self.name:
            return f"{self.base_model.name}-{self.image_seed(index)}.png"
        if self.n == 1:
            return self.name
        number = f"-{index + 1}"
        return f"{self.name[: LONGEST_NAME - len(number)]}{number}"
