"""Where the files of an image are served. Paths, so that they hold behind any host name."""

import uuid

from django.urls import reverse


def file_url(image_id: uuid.UUID) -> str:
    """Return the path that serves an image's file."""
    return reverse("image-file", args=[image_id])


def thumbnail_url(image_id: uuid.UUID, size: int | None = None) -> str:
    """Return the path that serves an image's thumbnail, in the middle size unless told otherwise."""
    path = reverse("image-thumbnail", args=[image_id])
    return f"{path}?size={size}" if size else path
