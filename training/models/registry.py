"""Base models and adapters: where their weights lie, and what is known of them."""

from typing import Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from albums.models import Image
from imagehub.identifiers import new_id
from training.pipelines.schedulers import problem_with

LARGEST_ADAPTER_WEIGHT = 2.0
SIDE_GRID = 8
"""Sides are multiples of this: the VAE of every supported model shrinks pictures eightfold."""


class Architecture(models.TextChoices):
    """Which family of networks weights belong to. An adapter fits the base models of its own."""

    SD1 = "sd1", "Stable Diffusion 1"
    SD2 = "sd2", "Stable Diffusion 2"
    SDXL = "sdxl", "Stable Diffusion XL"
    SD3 = "sd3", "Stable Diffusion 3"
    FLUX = "flux", "FLUX"
    OTHER = "other", "Something else"


class BaseModelQuerySet(models.QuerySet["BaseModel"]):
    def enabled(self) -> Self:
        return self.filter(is_enabled=True)

    def shown_to(self, *, sees_everything: bool) -> Self:
        """Keep what somebody may know of: staff everything, everybody else what is enabled."""
        return self if sees_everything else self.enabled()


class BaseModel(models.Model):
    """A diffusion model that pictures are generated with, and adapters trained on.

    The row says where the weights are found, never as an absolute path: machines keep them in different places.
    """

    class Kind(models.TextChoices):
        BUNDLED = "bundled", "Ships with ImageHub"
        FOLDER = "folder", "Folder in diffusers layout under the models root"
        FILE = "file", "Single .safetensors file under the models root"
        HUB = "hub", "Hub id, such as org/name"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.SlugField(unique=True, max_length=100, help_text="What requests call it.")
    kind = models.CharField(max_length=10, choices=Kind)
    source = models.CharField(
        max_length=300, help_text="Name of the bundled model, path under the models root, or hub id."
    )
    default_width = models.PositiveSmallIntegerField(default=512)
    default_height = models.PositiveSmallIntegerField(default=512)
    default_steps = models.PositiveSmallIntegerField(default=30, validators=[MinValueValidator(1)])
    default_guidance_scale = models.FloatField(
        default=7.0, validators=[MinValueValidator(0.0), MaxValueValidator(30.0)]
    )
    default_scheduler = models.CharField(max_length=30, blank=True, help_text="Empty: the model's own.")
    architecture = models.CharField(
        max_length=10, choices=Architecture, blank=True, help_text="Empty: nobody has looked yet."
    )
    pipeline = models.CharField(
        max_length=100, blank=True, editable=False, help_text="The class of diffusers that loads it."
    )
    size_bytes = models.PositiveBigIntegerField(null=True, blank=True, editable=False)
    problem = models.CharField(
        max_length=500,
        blank=True,
        editable=False,
        help_text="Why it cannot be used, as far as a look can tell.",
    )
    probed_at = models.DateTimeField(null=True, blank=True, editable=False)
    is_enabled = models.BooleanField(default=True, help_text="Jobs may use it.")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = BaseModelQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="basemodel_default_size_positive",
                condition=Q(default_width__gte=8, default_height__gte=8),
            )
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse defaults that every request which relies on them would fail for."""
        faults = {
            side: "It is a multiple of 8."
            for side in ("default_width", "default_height")
            if (getattr(self, side) or 0) % SIDE_GRID
        }
        if found := problem_with(self.default_scheduler or None, steps=self.default_steps or 1):
            field, detail = found
            faults[f"default_{field}"] = detail
        if faults:
            raise ValidationError(faults)


class AdapterQuerySet(models.QuerySet["Adapter"]):
    def enabled(self) -> Self:
        return self.filter(is_enabled=True)

    def shown_to(self, *, sees_everything: bool) -> Self:
        """Keep what somebody may know of: staff everything, everybody else what is enabled."""
        return self if sees_everything else self.enabled()


class Adapter(models.Model):
    """A LoRA adapter: one .safetensors file under the models root, and what its header and shapes tell."""

    class Layout(models.TextChoices):
        KOHYA = "kohya", "Kohya"
        DIFFUSERS = "diffusers", "Diffusers"
        PEFT = "peft", "PEFT"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    source = models.CharField(max_length=300, unique=True, help_text="Path under the models root.")
    sha256 = models.CharField("SHA-256", max_length=64, unique=True, help_text="Of the whole file.")
    size_bytes = models.PositiveBigIntegerField()
    file_state = models.CharField(
        max_length=100,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="What was seen of its file without reading it when it was read last.",
    )

    architecture = models.CharField(max_length=10, choices=Architecture)
    layout = models.CharField(max_length=10, choices=Layout)
    rank = models.PositiveIntegerField(null=True, blank=True, help_text="The largest, where layers differ.")
    alpha = models.FloatField(null=True, blank=True, help_text="That of the layers with the largest rank.")
    targets = models.JSONField(
        default=dict, blank=True, help_text="How many layers of each part of a model it changes."
    )
    trigger_words = models.JSONField(default=list, blank=True)
    base_model_name = models.CharField(
        max_length=200, blank=True, help_text="What it was trained on, as its header says."
    )
    default_weight = models.FloatField(
        default=1.0,
        validators=[MinValueValidator(-LARGEST_ADAPTER_WEIGHT), MaxValueValidator(LARGEST_ADAPTER_WEIGHT)],
    )
    training_run = models.ForeignKey(
        "training.TrainingRun", null=True, blank=True, on_delete=models.SET_NULL, related_name="adapters"
    )
    training_step = models.PositiveIntegerField(
        null=True, blank=True, help_text="Of the training run, after which it was saved."
    )
    preview = models.ForeignKey(Image, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    is_enabled = models.BooleanField(default=True, help_text="Jobs may use it.")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AdapterQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["-created_at", "-id"], name="adapter_newest")]

    def __str__(self) -> str:
        return self.name
