"""Taking images out of everybody's sight at once, for a reason that is kept."""

import uuid
from collections.abc import Iterable, Sequence

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from albums.batches import in_batches
from albums.models import Image, Visibility
from albums.services.bulk import lock_images, refresh_albums_of
from imagehub.accounts import audit
from imagehub.accounts.models import AuditEntry

ACTION = "image.quarantine"


def quarantine_images(image_ids: Iterable[uuid.UUID], *, reason: str) -> int:
    """Make images private and put them into the trash; return how many were not in quarantine yet.

    Each has an entry of its own in the audit trail, with the reason: what was public before, and who asked. Its content is
    named there as well, and known by it when the image has been purged. One that was in the trash already, for no such reason,
    gets the entry only.
    """
    ids = sorted(set(image_ids))
    with transaction.atomic():
        at_large = Image.objects.filter(
            ~Q(visibility=Visibility.PRIVATE) | Q(deleted_at=None) | ~Q(pk__in=_noted(ids))
        )
        changed = lock_images(at_large, ids)
        for batch in in_batches(changed):
            for image in Image.objects.filter(pk__in=batch).only("id", "visibility", "deleted_at", "sha256"):
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


def _noted(ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return which of these images have been in quarantine."""
    entries = AuditEntry.objects.filter(action=ACTION, after__has_key="sha256")
    return {
        uuid.UUID(pk)
        for batch in in_batches(ids)
        for pk in entries.filter(target_id__in=map(str, batch)).values_list("target_id", flat=True)
    }


def contents_taken_down(sha256s: Iterable[str]) -> set[str]:
    """Return which of these contents were taken down: their images are in the trash, or were purged from there.

    An image that somebody has restored stands for none any more.
    """
    wanted = list(set(sha256s))
    if not wanted:
        return set()
    entries = AuditEntry.objects.filter(action=ACTION, after__sha256__in=wanted)
    content_of = {uuid.UUID(pk): sha256 for pk, sha256 in entries.values_list("target_id", "after__sha256")}
    restored = set(Image.objects.live().filter(pk__in=content_of).values_list("pk", flat=True))
    return {sha256 for pk, sha256 in content_of.items() if pk not in restored}
