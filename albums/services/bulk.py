"""What it takes to change images by the thousand."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from albums.batches import in_batches
from albums.models import AlbumImage, Image, ImageQuerySet
from albums.services.albums import refresh_summaries
from imagehub.accounts import audit


def lock_images(images: ImageQuerySet, ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Take the locks of those images that are among the ids, in their order; return the ids of these."""
    return [
        pk
        for batch in in_batches(ids)
        for pk in images.filter(pk__in=batch)
        .select_for_update(no_key=True)
        .order_by("pk")
        .values_list("pk", flat=True)
    ]


def refresh_albums_of(ids: Sequence[uuid.UUID]) -> None:
    """Count every album again that holds one of these images, however many they are."""
    albums: set[uuid.UUID] = set()
    for batch in in_batches(ids):
        albums.update(AlbumImage.objects.filter(image__in=batch).values_list("album_id", flat=True))
    refresh_summaries(albums)


def record_change_of_many(
    action: str, asked: Sequence[uuid.UUID], changed: Sequence[uuid.UUID], *, after: Mapping[str, Any]
) -> None:
    """Write one entry into the audit trail for many images, those that were changed. A single image has its own.

    That somebody asked is recorded as well where nothing had to be changed.
    """
    if len(asked) == 1 and (image := Image.objects.filter(pk=asked[0]).first()):
        audit.record(action, image, after=after if changed else None)
    elif asked:
        audit.record(action, after={**after, "count": len(changed), "images": [str(pk) for pk in changed]})
