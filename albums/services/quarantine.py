"""Taking images out of everybody's sight at once, for a reason that is kept."""

import uuid
from collections.abc import Iterable

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from albums.batches import in_batches
from albums.models import BarredContent, Image, Visibility
from albums.services.barring import bar_contents
from albums.services.bulk import lock_images, refresh_albums_of
from imagehub.accounts import audit

ACTION = "image.quarantine"


def quarantine_images(image_ids: Iterable[uuid.UUID], *, reason: str) -> int:
    """Make images private and put them into the trash; return how many were not in quarantine yet.

    Each has an entry of its own in the audit trail, with the reason: what was public before, and who asked. Its content is
    barred, also when the image has been purged, until somebody restores it. One that was in the trash already, for no such
    reason, gets entry and bar only.
    """
    ids = sorted(set(image_ids))
    with transaction.atomic():
        is_barred = Exists(BarredContent.objects.filter(sha256=OuterRef("sha256")))
        at_large = Image.objects.filter(
            ~Q(visibility=Visibility.PRIVATE) | Q(deleted_at=None) | ~Q(is_barred)
        )
        changed = lock_images(at_large, ids)
        for batch in in_batches(changed):
            images = list(Image.objects.filter(pk__in=batch).only("id", "visibility", "deleted_at", "sha256"))
            bar_contents(image.sha256 for image in images)
            for image in images:
                before = {"visibility": image.visibility, "deleted_at": image.deleted_at}
                audit.record(
                    ACTION,
                    image,
                    before=before,
                    after={"reason": reason, "sha256": image.sha256},
                    target_label=f"image {image.pk}",
                )
            Image.objects.filter(pk__in=batch).update(
                visibility=Visibility.PRIVATE, deleted_at=Coalesce("deleted_at", timezone.now())
            )
        refresh_albums_of(changed)
    return len(changed)
