"""How images look, kept so that those that look the same are found without reading the whole library."""

from typing import Self

from django.db import models

from albums.models.images import Image
from albums.similarity import BITS_PER_BAND, Fingerprint

FIELDS = ("edges_0", "edges_1", "edges_2", "edges_3", "tone", "colors")


class ImageLook(models.Model):
    """The fingerprint of an image; see :mod:`albums.similarity`.

    Its edges are cut into four parts, for two pictures that look the same have at least one in common. Each index goes on with
    the tone: where thousands share a part, because they are plain, those that are as bright are found among them.
    """

    number: int  # of a picture that is compared with it; only ``lookalikes`` adds these
    area: int  # of its image

    image = models.OneToOneField(Image, on_delete=models.CASCADE, primary_key=True, related_name="look")
    edges_0 = models.PositiveIntegerField()
    edges_1 = models.PositiveIntegerField()
    edges_2 = models.PositiveIntegerField()
    edges_3 = models.PositiveIntegerField()
    tone = models.PositiveIntegerField(help_text="The sum of all colors.")
    colors = models.BinaryField(max_length=48)

    class Meta:
        indexes = [
            models.Index(name="imagelook_edges_0", fields=["edges_0", "tone"]),
            models.Index(name="imagelook_edges_1", fields=["edges_1", "tone"]),
            models.Index(name="imagelook_edges_2", fields=["edges_2", "tone"]),
            models.Index(name="imagelook_edges_3", fields=["edges_3", "tone"]),
        ]

    def __str__(self) -> str:
        return f"look of {self.image_id}"

    @classmethod
    def of(cls, image: Image, fingerprint: Fingerprint) -> Self:
        """Return the look of an image, unsaved."""
        values = (*fingerprint.parts, fingerprint.tone, fingerprint.colors)
        return cls(image=image, **dict(zip(FIELDS, values, strict=True)))

    @property
    def fingerprint(self) -> Fingerprint:
        parts = (self.edges_0, self.edges_1, self.edges_2, self.edges_3)
        edges = sum(part << number * BITS_PER_BAND for number, part in enumerate(parts))
        return Fingerprint(edges, bytes(self.colors))
