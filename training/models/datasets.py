"""Data sets: which pictures a run trains on, and what is said of them, as it was when the run was made."""

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from albums.models import Image
from imagehub.identifiers import new_id


class Role(models.TextChoices):
    """What a picture is there for."""

    TRAIN = "train", "To learn from"
    VALIDATION = "validation", "To measure by"


class Dataset(models.Model):
    """A snapshot of the captioned pictures of some albums. Written once: later changes of an album do not reach it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    sha256 = models.CharField(
        "SHA-256", max_length=64, editable=False, help_text="Of its manifest in canonical form."
    )
    albums = models.JSONField(
        default=list, help_text="Id and name of each album it was taken from, as it was called."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"data set {self.pk}"


class DatasetImage(models.Model):
    """One picture of a data set, with the caption it had."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="images", db_index=False)
    position = models.PositiveIntegerField(help_text="In the manifest, from 0.")
    image = models.ForeignKey(
        Image, null=True, on_delete=models.SET_NULL, related_name="+", help_text="None once it is purged."
    )
    sha256 = models.CharField("SHA-256", max_length=64, help_text="Of the picture's stored bytes.")
    storage_name = models.CharField(max_length=200, help_text="Relative to the media root.")
    caption = models.TextField()
    role = models.CharField(max_length=10, choices=Role)
    repeats = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1)], help_text="How often it is shown in one epoch."
    )
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    bucket_width = models.PositiveIntegerField(help_text="The size it is trained in.")
    bucket_height = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(name="datasetimage_once", fields=["dataset", "position"]),
            models.CheckConstraint(
                name="datasetimage_role_known", condition=Q(role__in=["train", "validation"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.position} of {self.dataset_id}"
