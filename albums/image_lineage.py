"""Images in the graph of where things come from. How they were made and fetched, other apps add."""

import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from albums import links
from albums.lineage import Key, Kind, Node, register_kind
from albums.models import Image, may_see_everything
from albums.services.quarantine import quarantine_images

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

IMAGE = "image"


def image_node(image: Image) -> Node:
    """Return an image that somebody may see, without its prompt, which the image itself tells."""
    details = {
        "thumbnail_url": links.thumbnail_url(image.pk),
        "visibility": image.visibility,
        "source": image.source_kind,
        "in_trash": image.deleted_at is not None,
    }
    return Node(Key(IMAGE, str(image.pk)), image.name, f"/api/images/{image.pk}", details)


def register() -> None:
    """Add images to the graph."""
    register_kind(Kind(IMAGE, _describe, _quarantine))


def _describe(ids: Sequence[str], user: "AbstractUser | AnonymousUser") -> Iterator[Node]:
    images = Image.objects.all() if may_see_everything(user) else Image.objects.shown_to(user)
    columns = ("id", "name", "visibility", "source_kind", "deleted_at")
    yield from map(image_node, images.filter(pk__in=ids).only(*columns))


def _quarantine(ids: Sequence[str], reason: str) -> int:
    return quarantine_images(map(uuid.UUID, ids), reason=reason)
