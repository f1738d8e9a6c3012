"""Everything that writes albums and images, and what can go wrong."""

from collections.abc import Iterable
from pathlib import Path

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from albums.models import Album, AlbumImage, Image
from albums.pictures import UnreadablePicture, read_header
from imagehub import storage
from imagehub.errors import Conflict, NotReady

__all__ = [
    "AlbumGone",
    "ImageFileMissing",
    "UnreadablePicture",
    "add_images_to_album",
    "adopt_image_file",
    "create_album",
    "image_path",
    "save_image",
    "store_image",
]

SUFFIXES: dict[str, str] = {Image.Format.PNG: "png", Image.Format.JPEG: "jpg", Image.Format.WEBP: "webp"}


class AlbumGone(Conflict):
    code = "album_gone"
    title = "The album has been deleted"


class ImageFileMissing(NotReady):
    code = "image_file_missing"
    title = "The file of this image is missing"


def store_image(image: Image, path: Path, *, album: Album | None = None) -> Image:
    """Take a finished file into the store, then save the image that describes it.

    The file comes first: whatever dies in between leaves a file without a row, which ``check_storage``
    removes, and never a row without a file. Not to be called with a transaction open.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        IntegrityError: the source has delivered this image before.
        StorageFull: the disk is full.
        UnreadablePicture: the file is no PNG, JPEG or WebP picture.
        ValidationError: a field of the image is out of range.
    """
    return save_image(adopt_image_file(image, path), album=album)


def adopt_image_file(image: Image, path: Path) -> Image:
    """Take a finished file into the store and note it on an unsaved image. The first half of ``store_image``.

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


def save_image(image: Image, *, album: Album | None = None) -> Image:
    """Insert an image whose file is stored, and append it to an album. The second half of ``store_image``.

    Touches no disk, so it may be part of the caller's transaction.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        IntegrityError: the source has delivered this image before.
        ValidationError: a field of the image is out of range.
    """
    image.clean_fields(exclude=["owner"])
    with transaction.atomic():
        image.save(force_insert=True)
        if album:
            add_images_to_album(album, [image])
    return image


def create_album(album: Album) -> Album:
    """Save a new album.

    Raises:
        ValidationError: a field is out of range.
    """
    album.clean_fields(exclude=["owner", "cover"])
    album.save(force_insert=True)
    return album


def add_images_to_album(album: Album, images: Iterable[Image]) -> int:
    """Append images to an album in the order given; return how many were not there yet.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
    """
    wanted = {image.pk: image for image in images}
    with transaction.atomic():
        # The lock of this album on PostgreSQL, of the database on SQLite: whoever appends next waits,
        # and then sees these positions.
        if not Album.objects.filter(pk=album.pk).update(updated_at=timezone.now()):
            raise AlbumGone(f"The album “{album}” has been deleted.")
        present = album.memberships.filter(image__in=wanted).values_list("image_id", flat=True)
        for pk in present:
            del wanted[pk]
        last = album.memberships.aggregate(last=Max("position"))["last"]
        first = 0 if last is None else last + 1
        AlbumImage.objects.bulk_create(
            AlbumImage(album=album, image=image, position=position)
            for position, image in enumerate(wanted.values(), start=first)
        )
    return len(wanted)


def image_path(image: Image) -> Path:
    """Return where the file of an image lies.

    Raises:
        ImageFileMissing: it is not there.
    """
    path = storage.path_of(image.storage_name)
    if not path.is_file():
        raise ImageFileMissing(f"The file of “{image}” is missing from the store.")
    return path
