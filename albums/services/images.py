"""Everything that writes images, and what can go wrong. Deleting them is :mod:`albums.services.trash`."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django.db import transaction

from albums.batches import in_batches
from albums.models import Album, Image, ImageLora, Visibility
from albums.pictures import read_header
from albums.services.albums import add_images_to_album
from albums.services.bulk import lock_images, record_change_of_many, refresh_albums_of
from albums.services.contents import hold_contents
from albums.services.labels import ImageGone
from albums.services.search import index_new_images, index_words
from imagehub import storage
from imagehub.accounts import audit
from imagehub.errors import Conflict, NotReady

SUFFIXES: dict[str, str] = {Image.Format.PNG: "png", Image.Format.JPEG: "jpg", Image.Format.WEBP: "webp"}


class ImageFileMissing(NotReady):
    code = "image_file_missing"
    title = "The file of this image is missing"


class ImageInTrash(Conflict):
    code = "image_in_trash"
    title = "The image is in the trash"


CHANGEABLE = frozenset({"visibility", "nsfw", "starred", "rating", "name", "prompt", "negative_prompt"})
WORDS = frozenset({"name", "prompt"})
SHOWS = frozenset({"visibility", "nsfw"})
"""What decides who is shown an image, so that albums have to be counted again."""


def adopt_image_file(image: Image, path: Path) -> Image:
    """Take a finished file into the store and note it on an unsaved image, for :func:`save_image` to insert.

    The file comes first: whatever dies in between leaves a file without a row, which ``check_storage``
    removes, and never a row without a file. Not to be called with a transaction open.

    Raises:
        FileNotFoundError: there is no such file.
        StorageFull: the disk is full.
        UnreadablePicture: the file is no PNG, JPEG or WebP picture.
    """
    header = read_header(path)
    stored = storage.adopt_file(path, suffix=SUFFIXES[header.format])
    image.storage_name, image.sha256, image.size_bytes = stored.name, stored.sha256, stored.size_bytes
    image.width, image.height, image.format = header.width, header.height, header.format
    return image


def save_image(image: Image, *, album: Album | None = None, position: int | None = None) -> Image:
    """Insert an image whose file is stored, and append it to an album, or put it at a position there.

    Writes nothing to the disk, so it may be part of the caller's transaction.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        ImageFileMissing: the last image with these bytes was purged after the file had been taken in.
        IntegrityError: the source has delivered this image before.
        ValidationError: a field of the image is out of range.
    """
    image.clean_fields(exclude=["owner"])
    with transaction.atomic():
        image.save(force_insert=True)
        _follow_up([image], album, position)
    return image


def save_images(images: Sequence[Image], *, album: Album | None = None) -> None:
    """Do the same for many images at once, by the same few queries however many there are.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        ImageFileMissing: the last image with the bytes of one was purged after the file had been taken in.
        IntegrityError: a source has delivered one of the images before.
        ValidationError: a field of an image is out of range.
    """
    for image in images:
        image.clean_fields(exclude=["owner"])
    with transaction.atomic():
        Image.objects.bulk_create(images)
        audit.record_created(images)
        _follow_up(images, album)


def _follow_up(images: Sequence[Image], album: Album | None, position: int | None = None) -> None:
    """Hold on to the files of new images, and write what belongs to them beside their rows."""
    hold_contents(image.sha256 for image in images)
    missing = storage.missing(image.storage_name for image in images)
    for image in images:
        if image.storage_name in missing:
            raise ImageFileMissing(f"The file of “{image}” is missing from the store.")
    ImageLora.objects.bulk_create(
        ImageLora(image=image, lora_id=lora_id) for image in images for lora_id in _used_loras(image)
    )
    index_new_images(images)
    if album:
        add_images_to_album(album, images, position=position)


def _used_loras(image: Image) -> list[str]:
    return sorted({str(lora["id"])[:64] for lora in image.loras if lora.get("id") is not None})


@contextmanager
def local_image(image: Image) -> Iterator[Path]:
    """Lend a path at which the file of an image can be read: the file itself, or a copy where files are in a bucket.

    Raises:
        ImageFileMissing: it is not there.
        StorageUnreachable: the bucket does not answer.
    """
    with ExitStack() as stack:
        try:
            path = stack.enter_context(storage.local_copy(image.storage_name))
        except FileNotFoundError as error:
            raise ImageFileMissing(f"The file of “{image}” is missing from the store.") from error
        yield path


def update_image(image: Image, **changes: Any) -> Image:
    """Change what people may change about an image; return it as it is now. Other fields stay as others left them.

    Args:
        image: the image, of which only the id is used.
        **changes: ``visibility``, ``nsfw``, ``starred``, ``rating``, ``name``, ``prompt``, ``negative_prompt``.

    Raises:
        ImageGone: somebody purged it in the meantime.
        ImageInTrash: it has to be restored first.
        TypeError: there is no such field, or it is not for people to change.
        ValidationError: a value is out of range.
    """
    _refuse_unknown(changes)
    with transaction.atomic():
        # No row's key changes: whoever names the image as a cover meanwhile need not wait, and no two for each other.
        current = Image.objects.select_for_update(no_key=True).filter(pk=image.pk).first()
        if current is None:
            raise ImageGone("The image has been deleted.")
        if current.deleted_at:
            raise ImageInTrash("The image is in the trash: restore it first.")
        changed = [name for name, value in changes.items() if getattr(current, name) != value]
        for name in changed:
            setattr(current, name, changes[name])
        current.clean_fields(exclude={field.name for field in Image._meta.fields} - set(changed))
        if changed:
            current.save(update_fields=changed)
        else:  # that somebody asked for it belongs into the audit trail all the same
            audit.record("image.change", current)
        if WORDS.intersection(changed):
            index_words([current.pk])
        if SHOWS.intersection(changed):
            refresh_albums_of([current.pk])
    return current


def update_images(
    image_ids: Iterable[uuid.UUID],
    *,
    visibility: Visibility | str | None = None,
    nsfw: str | None = None,
    starred: bool | None = None,
    rating: int | None = None,
) -> int:
    """Give many images the same values, all or none; return how many there were. The trash is left alone.

    Raises:
        ValidationError: a value is out of range.
    """
    values = {"visibility": visibility, "nsfw": nsfw, "starred": starred, "rating": rating}
    changes = {name: value for name, value in values.items() if value is not None}
    if not changes:
        return 0
    for name, value in changes.items():
        Image._meta.get_field(name).clean(value, None)
    with transaction.atomic():
        ids = sorted(set(image_ids))
        changed = lock_images(Image.objects.live(), ids)
        for batch in in_batches(changed):
            Image.objects.filter(pk__in=batch).update(**changes)
        record_change_of_many("image.change", ids, changed, after=changes)
        if SHOWS.intersection(changes):
            refresh_albums_of(changed)
    return len(changed)


def _refuse_unknown(changes: dict[str, Any]) -> None:
    if unknown := changes.keys() - CHANGEABLE:
        raise TypeError(f"Not for people to change: {', '.join(sorted(unknown))}.")
