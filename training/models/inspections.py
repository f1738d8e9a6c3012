"""What a look at a picture told of it: whatever a preflight wants to know that its row does not say."""

from django.db import models
from django.db.models import Q

from albums.models import Image
from albums.similarity import Fingerprint


class ImageInspection(models.Model):
    """What was seen in the file of an image. Made in the background, and once where all went well: the file never changes.

    How it looks is known beside it: see :class:`albums.models.ImageLook`.
    """

    fingerprint: Fingerprint | None = None  # only ``inspect`` sets it

    class Problem(models.TextChoices):
        MISSING = "missing", "The file is not in the store"
        UNREADABLE = "unreadable", "The file cannot be read"

    image = models.OneToOneField(Image, on_delete=models.CASCADE, primary_key=True, related_name="+")
    mode = models.CharField(max_length=20, blank=True, help_text="Pillow's word for its channels.")
    is_animated = models.BooleanField(default=False)
    has_alpha = models.BooleanField(default=False)
    problem = models.CharField(max_length=10, choices=Problem, blank=True)
    inspected_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="imageinspection_problem_known", condition=Q(problem__in=["", "missing", "unreadable"])
            ),
        ]

    def __str__(self) -> str:
        return f"inspection of {self.image_id}"
