"""What is searched when somebody searches for images."""

from django.db import models

from albums.models.images import Image


class ImageText(models.Model):
    """The words of an image: of its name, prompt, captions and tags, as :mod:`albums.words` finds them.

    Services keep it true. Each word stands between spaces, so a document also tells which words follow each other.

    The full-text indexes of PostgreSQL and SQLite lie over this narrow table (see its migration). Its whole-number key
    grows with every image that comes in, and both can walk it from the newest down.
    """

    id = models.BigAutoField(primary_key=True)
    image = models.OneToOneField(Image, on_delete=models.CASCADE, related_name="text")
    document = models.TextField(blank=True)

    class Meta:
        verbose_name = "words of an image"
        verbose_name_plural = "words of images"

    def __str__(self) -> str:
        return f"words of {self.image_id}"
