"""Knowing how images look, and finding those that look the same."""

import uuid
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import TypeVar

import PIL.Image

from albums import thumbnails
from albums.batches import in_batches
from albums.models import Album, AlbumImage, Image, ImageLook
from albums.models.looks import FIELDS
from albums.pictures import DECODERS
from albums.similarity import FARTHEST, Fingerprint
from imagehub import storage

K = TypeVar("K", bound=Hashable)

AT_ONCE = 32
"""Pictures for which one query looks. SQLite takes no more than 500 selects in one."""

NEIGHBOURS = 64
"""Images that share a part with a picture and are compared with it: so many that are as bright or brighter, and as many darker."""

SELECT = (
    "SELECT * FROM (SELECT {number} AS number, image_id FROM albums_imagelook"
    " WHERE edges_{band} = %s AND tone >= %s AND tone <= %s"
    " ORDER BY tone{order} LIMIT {neighbours}) AS part"
)
FOUND = (
    "SELECT albums_imagelook.*, found.number, albums_image.width * albums_image.height AS area"
    " FROM ({selects}) AS found JOIN albums_imagelook ON albums_imagelook.image_id = found.image_id"
    " JOIN albums_image ON albums_image.id = found.image_id WHERE albums_image.deleted_at IS NULL"
)


def fingerprint_of(image: Image) -> Fingerprint:
    """Look at an image: at its smallest thumbnail, which is rendered where it is missing.

    Raises:
        ImageFileMissing, StillBusy, StorageFull, UnreadablePicture: see :func:`albums.thumbnails.thumbnail_of`.
    """
    with (
        storage.open_file(thumbnails.thumbnail_of(image, thumbnails.smallest_size())) as file,
        PIL.Image.open(file, formats=DECODERS) as thumbnail,
    ):
        return Fingerprint.of(thumbnail)


def remember_looks(pairs: Iterable[tuple[Image, Fingerprint]]) -> None:
    """Write down how images look, in place of what was known of them.

    Raises:
        IntegrityError: one of the images was purged in the meantime; PostgreSQL says so when the transaction commits.
    """
    looks = {image.pk: ImageLook.of(image, fingerprint) for image, fingerprint in pairs}
    ImageLook.objects.bulk_create(
        looks.values(), update_conflicts=True, unique_fields=["image"], update_fields=FIELDS
    )


def looks_of(image_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Fingerprint]:
    """Return how images look, of those of which it is known."""
    return {
        look.image_id: look.fingerprint
        for batch in in_batches(image_ids)
        for look in ImageLook.objects.filter(image__in=batch)
    }


def lookalikes(
    fingerprints: Mapping[K, Fingerprint],
    *,
    album: Album | uuid.UUID | None = None,
    exclude: Collection[uuid.UUID] = (),
) -> dict[K, uuid.UUID]:
    """Find for each picture the largest image outside of the trash that looks the same; where there is none, it has no entry.

    What this costs does not depend on how many images there are. Of those that have one of the four parts of their edges in
    common with a picture, it is compared with the 128 that are most nearly as bright: in a crowd of more, which only plain
    pictures are, a lookalike is found unless so many others, wherever they are, are even nearer.

    Args:
        fingerprints: of the pictures.
        album: in which the image has to be; by default anywhere.
        exclude: images that are not meant.
    """
    found: dict[K, tuple[int, uuid.UUID]] = {}
    for batch in in_batches(fingerprints.items(), AT_ONCE):
        alike = [
            (batch[look.number][0], look.area, look.image_id)
            for look in _neighbours([fingerprint for _, fingerprint in batch])
            if look.image_id not in exclude and batch[look.number][1].resembles(look.fingerprint)
        ]
        if album is not None and alike:
            inside = _inside(album, {pk for _, _, pk in alike})
            alike = [one for one in alike if one[2] in inside]
        for key, area, pk in alike:
            found[key] = max(found.get(key, (area, pk)), (area, pk))
    return {key: pk for key, (_, pk) in found.items()}


def _neighbours(fingerprints: list[Fingerprint]) -> Iterable[ImageLook]:
    """Return the looks that are worth comparing, each with the ``number`` of a picture and the ``area`` of its image."""
    selects, params = [], []
    for number, fingerprint in enumerate(fingerprints):
        tone = fingerprint.tone
        for band, part in enumerate(fingerprint.parts):
            for least, most, order in ((tone, tone + FARTHEST, ""), (tone - FARTHEST, tone - 1, " DESC")):
                selects.append(SELECT.format(number=number, band=band, order=order, neighbours=NEIGHBOURS))
                params += [part, least, most]
    return ImageLook.objects.raw(FOUND.format(selects=" UNION ".join(selects)), params)


def _inside(album: Album | uuid.UUID, image_ids: set[uuid.UUID]) -> set[uuid.UUID]:
    """Return which of some images are in an album."""
    return {
        pk
        for batch in in_batches(image_ids)
        for pk in AlbumImage.objects.filter(album=album, image__in=batch).values_list("image", flat=True)
    }
