"""Contents that were taken down, and are not to come back by themselves."""

from django.db import models


class BarredContent(models.Model):
    """The bytes of pictures that were taken down. They are known by this when no image has them any more."""

    sha256 = models.CharField("SHA-256", max_length=64, unique=True)
    since = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.sha256[:12]
