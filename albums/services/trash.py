"""Deleting images in two steps: into the trash, from where they can come back, and for good."""

import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from albums import thumbnails
from albums.batches import in_batches
from albums.models import Image, ImageQuerySet
from albums.services.barring import admit_contents
from albums.services.bulk import lock_images, record_change_of_many, refresh_albums_of
from albums.services.contents import try_to_hold_contents_alone
from imagehub import storage
from imagehub.config import get_config
from imagehub.errors import Conflict
from imagehub.in_use import InUse, in_use

FILES_AT_ONCE = 400
"""While so many files are deleted nobody can take in the same ones, and on SQLite nobody can write."""


class NotInTrash(Conflict):
    code = "not_in_trash"
    title = "The image is not in the trash"


def trash_images(image_ids: Iterable[uuid.UUID]) -> int:
    """Put images into the trash, where nobody but staff meets them; return how many were not there yet."""
    return len(_move(Image.objects.live(), image_ids, "image.trash", deleted_at=timezone.now()))


def restore_images(image_ids: Iterable[uuid.UUID]) -> int:
    """Take images out of the trash, back to the places in albums that they had; return how many were there.

    What of them was taken down is not any more: crawls may bring it again.
    """
    with transaction.atomic():
        restored = _move(Image.objects.in_trash(), image_ids, "image.restore", deleted_at=None)
        for batch in in_batches(restored):
            admit_contents(Image.objects.filter(pk__in=batch).values_list("sha256", flat=True))
    return len(restored)


def purge_images(image_ids: Iterable[uuid.UUID]) -> int:
    """Delete images in the trash for good, all or none; return how many there were.

    The rows go first. A file and its thumbnails follow when no other row has the same bytes, be it in the trash;
    whatever dies in between leaves a file without a row, which ``check_storage`` finds, never the opposite.

    Raises:
        InUse: something still needs one of them.
        NotInTrash: one of them is not in the trash.
    """
    ids = sorted(set(image_ids))
    with transaction.atomic():
        rows = [
            row for batch in in_batches(ids) for row in Image.objects.select_for_update().filter(pk__in=batch)
        ]
        if any(row.deleted_at is None for row in rows):
            raise NotInTrash("Only what is in the trash can be deleted for good.")
        if reasons := in_use(Image, [row.pk for row in rows]):
            raise InUse(" ".join(sorted(set(reasons.values()))))
        for batch in in_batches([row.pk for row in rows]):
            Image.objects.filter(pk__in=batch).delete()  # with signals: each is told in the audit trail
        contents = {row.sha256: row.storage_name for row in rows}
        since = time.time()

        def delete_files() -> None:
            for batch in in_batches(contents, FILES_AT_ONCE):
                delete_unused_files({sha256: contents[sha256] for sha256 in batch}, since=since)

        transaction.on_commit(delete_files, robust=True)  # the rows are gone, whatever becomes of the files
    return len(rows)


def _move(
    images: ImageQuerySet, image_ids: Iterable[uuid.UUID], action: str, **values: Any
) -> list[uuid.UUID]:
    """Move images, write it down, and return which of them were not where they were to go."""
    ids = sorted(set(image_ids))
    with transaction.atomic():
        moved = lock_images(images, ids)
        for batch in in_batches(moved):
            Image.objects.filter(pk__in=batch).update(**values)
        record_change_of_many(action, ids, moved, after=values)
        refresh_albums_of(moved)
    return moved


def delete_unused_files(contents: Mapping[str, str], *, since: float) -> set[str]:
    """Delete files that no row names any more, with their thumbnails, and return the contents of those that are gone.

    They go while nobody can insert a row that needs one of them. One that somebody has taken in again in the meantime, or is
    just taking in, stays for the row that is to come; should none come, the daily sweep finds it.

    Args:
        contents: by their SHA-256 the names of the files, ``FILES_AT_ONCE`` at most.
        since: the moment, in seconds of the epoch, at which their rows went.

    Raises:
        OSError, StorageUnreachable, UnsafePath: the store does not give one of them up. The sweep finds what is left.
    """
    sizes = get_config().storage.thumbnail_sizes
    with transaction.atomic():
        alone = try_to_hold_contents_alone(contents.keys())
        named = Image.objects.filter(sha256__in=alone).values_list("sha256", flat=True)
        names = {contents[sha256]: sha256 for sha256 in alone - set(named)}
        deleted = storage.delete_all(names, untouched_for=timedelta(seconds=time.time() - since))
        lost = storage.missing(names.keys() - deleted)
        storage.delete_all(
            [thumbnails.thumbnail_name(names[name], size) for name in deleted | lost for size in sizes]
        )
    return {names[name] for name in deleted}
