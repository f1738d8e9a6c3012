from typing import Self

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from imagehub.identifiers import new_id


class BaseModelQuerySet(models.QuerySet["BaseModel"]):
    def enabled(self) -> Self:
        return self.filter(is_enabled=True)


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
    is_enabled = models.BooleanField(default=True, help_text="New jobs may use it.")
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
