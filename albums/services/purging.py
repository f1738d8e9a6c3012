"""Emptying the trash of what has lain there for some time."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.db import transaction
from django.db.models import CASCADE, SET_NULL, ForeignObjectRel, Model

from albums.batches import in_batches
from albums.models import Image
from albums.models.ids import AmongIds
from albums.services.trash import FILES_AT_ONCE, delete_unused_files
from imagehub.errors import ImageHubError
from imagehub.in_use import in_use
from imagehub.operations import purges
from imagehub.operations.walking import older_than

PURGE = "trash"
"""The name of this kind of purge."""

BATCH = 1000
"""Images that are deleted by one transaction."""


@dataclass(kw_only=True)
class Freed(purges.Freed):
    """What a purge of the trash deletes, or would. Bytes are those of files that no other image has."""

    images: int = 0
    kept: int = 0
    """Images that something still needs. The next purge asks again."""


class Doomed(NamedTuple):
    """What has to be known of an image once its row is gone."""

    pk: uuid.UUID
    sha256: str
    storage_name: str
    size_bytes: int


def register() -> None:
    """Let the platform empty the trash."""
    purges.register(
        purges.PurgeKind(
            name=PURGE,
            things="images",
            setting="trash.retention_days",
            clock="purges.trash_at",
            perform=purge_trash,
            counts={"images": "images", "kept": "images kept, which are in use"},
            ended="were put into the trash",
        )
    )


def purge_trash(
    *,
    cutoff: datetime,
    is_dry_run: bool = False,
    limit: int | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Freed:
    """Delete images for good that were put into the trash before, unless something needs them (:mod:`imagehub.in_use`).

    Rows go first, some at a time, and then the files and thumbnails that no other row has, be it in the trash. Whatever dies
    in between leaves files without rows, which the daily sweep deletes, never the opposite. Files are found by the names that the
    store has given them, so nothing else is reached.
    """
    freed = Freed()
    trash = Image.objects.in_trash()
    for keys in older_than(trash, cutoff, by="deleted_at", size=BATCH):
        if limit is not None:
            if freed.images >= limit:
                break
            keys = keys[: limit - freed.images]
        if is_dry_run:
            _rehearse(keys, freed)
        else:
            _purge(keys, freed, cutoff=cutoff)
        on_progress()
    return freed


def _rehearse(keys: Sequence[uuid.UUID], freed: Freed) -> None:
    free = set(keys) - set(in_use(Image, keys))
    sizes = dict(Image.objects.filter(pk__in=free).values_list("sha256", "size_bytes"))
    # Whether all of those with the same bytes go, only going tells: here each file counts once for a batch.
    others = Image.objects.filter(sha256__in=sizes).exclude(pk__in=free).values_list("sha256", flat=True)
    freed.bytes += sum(sizes.values()) - sum(sizes[sha256] for sha256 in set(others))
    freed.images += len(free)
    freed.kept += len(keys) - len(free)


def _purge(keys: Sequence[uuid.UUID], freed: Freed, *, cutoff: datetime) -> None:
    with transaction.atomic():
        # What somebody restores at this moment is not there any more, or waits for us and is gone.
        rows = (
            Image.objects.select_for_update()
            .filter(AmongIds(map(str, keys)), deleted_at__lt=cutoff)
            .order_by("pk")  # as all who hold many
            .values_list("pk", "sha256", "storage_name", "size_bytes")
        )
        found = [Doomed(*row) for row in rows]
        needed = in_use(Image, [image.pk for image in found])
        free = [image for image in found if image.pk not in needed]
        _delete_rows([image.pk for image in free])
    freed.images += len(free)
    freed.kept += len(found) - len(free)
    _delete_files({image.sha256: image for image in free}, freed)


def _delete_rows(keys: Sequence[uuid.UUID]) -> None:
    """Delete images with all that hangs on them, in the transaction that is open.

    By statements for many, where Django would read each row to tell its listeners, which have nothing to say of a purge.

    Raises:
        TypeError: some app wants something else done than deleting its rows, or letting go of the image.
    """
    ids = [str(key) for key in keys]
    for relation in _pointing_at(Image):
        name, model = relation.field.name, relation.related_model
        rows = model._base_manager.filter(AmongIds(ids, name=name))
        if relation.on_delete is SET_NULL:
            rows.update(**{name: None})
        elif relation.on_delete is not CASCADE:
            raise TypeError(f"{relation.field} has to say in_use what it needs, and lets go of images.")
        elif _pointing_at(model):
            rows.delete()
        else:
            rows._raw_delete(using=rows.db)
    images = Image.objects.filter(AmongIds(ids))
    images._raw_delete(using=images.db)


def _pointing_at(model: type[Model]) -> list[ForeignObjectRel]:
    """Return the foreign keys that lead to a model, also those without a way back."""
    relations = model._meta.get_fields(include_hidden=True)
    return [
        relation
        for relation in relations
        if isinstance(relation, ForeignObjectRel) and (relation.one_to_many or relation.one_to_one)
    ]


def _delete_files(rows: Mapping[str, Doomed], freed: Freed) -> None:
    """Delete the files of images whose rows are gone. What cannot be deleted keeps no other."""
    since = time.time()
    for batch in in_batches(rows, FILES_AT_ONCE):
        try:
            _delete_some(batch, rows, freed, since)
        except (OSError, ImageHubError):
            for sha256 in batch:
                try:
                    _delete_some([sha256], rows, freed, since)
                except (OSError, ImageHubError) as error:  # the text of the first would name the path
                    why = error.strerror if isinstance(error, OSError) else error.code
                    freed.fail(f"the files of image {rows[sha256].pk}", why)


def _delete_some(batch: Sequence[str], rows: Mapping[str, Doomed], freed: Freed, since: float) -> None:
    gone = delete_unused_files({sha256: rows[sha256].storage_name for sha256 in batch}, since=since)
    freed.bytes += sum(rows[sha256].size_bytes for sha256 in gone)
