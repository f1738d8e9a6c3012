"""Where the files of an image are served. Paths, so that they hold behind any host name."""

import uuid
from functools import cache

from django.urls import reverse

NIL = uuid.UUID(int=0)


def file_url(image_id: uuid.UUID) -> str:
    """Return the path that serves an image's file."""
    return _path("image-file", image_id)


def thumbnail_url(image_id: uuid.UUID, size: int | None = None) -> str:
    """Return the path that serves an image's thumbnail, in the middle size unless told otherwise."""
    path = _path("image-thumbnail", image_id)
    return f"{path}?size={size}" if size else path


def page_url(image_id: uuid.UUID) -> str:
    """Return the path of the page that shows an image to people."""
    return _path("picture", image_id)


def _path(name: str, image_id: uuid.UUID) -> str:
    before, after = _around_the_id(name)
    return f"{before}{image_id}{after}"


@cache
def _around_the_id(name: str) -> tuple[str, str]:
    """Look a route up once for the whole process: a list of two hundred images would ask for it four hundred times."""
    before, _, after = reverse(name, args=[NIL]).partition(str(NIL))
    return before, after
