"""Taking images out of everybody's sight at once, for a reason that is kept."""

import uuid
from collections.abc import Iterable

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from albums.batches import in_batches
from albums.models import Image, Visibility
from albums.services.bulk import lock_images, refresh_albums_of
from imagehub.accounts import audit


def quarantine_images(image_ids: Iterable[uuid.UUID], *, reason: str) -> int:
    """Make images private and put them into the trash; return how many were not both yet.

    Each has an entry of its own in the audit trail, with the reason: what was public before, and who asked.
    """
    ids = sorted(set(image_ids))
    with transaction.atomic():
        at_large = Image.objects.filter(~Q(visibility=Visibility.PRIVATE) | Q(deleted_at=None))
        changed = lock_images(at_large, ids)
        for batch in in_batches(changed):
            for image in Image.objects.filter(pk__in=batch).only("id", "visibility", "deleted_at"):
                before = {"visibility": image.visibility, "deleted_at": image.deleted_at}
                audit.record(
                    "image.quarantine",
                    image,
                    before=before,
                    after={"reason": reason},
                    target_label=f"image {image.pk}",
                )
            Image.objects.filter(pk__in=batch).update(
                visibility=Visibility.PRIVATE, deleted_at=Coalesce("deleted_at", timezone.now())
            )
        refresh_albums_of(changed)
    return len(changed)
