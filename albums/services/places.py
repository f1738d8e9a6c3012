"""Which images an album holds, in which order, and which of them stands for it."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence

from django.db import transaction
from django.db.models import F, Q

from albums.models import Album, AlbumImage, Image
from albums.services.albums import (
    add_images_to_album,
    drop_places,
    lock_album,
    lock_albums,
    next_position,
    refresh_summaries,
)
from albums.signals import albums_merged
from imagehub.accounts import audit
from imagehub.errors import Invalid


class ImageNotInAlbum(Invalid):
    def __init__(self, *, pointer: str) -> None:
        super().__init__("The image is not in this album.", pointer=pointer, code="not_in_album")


class MergedWithItself(Invalid):
    def __init__(self, *, pointer: str) -> None:
        super().__init__("An album is not merged with itself.", pointer=pointer)


def remove_images_from_album(album: Album, images: Iterable[Image]) -> int:
    """Take images out of an album; return how many were in it. One that was its cover is no longer.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
    """
    ids = {image.pk for image in images}
    with transaction.atomic():
        lock_album(album)
        removed = drop_places(AlbumImage.objects.filter(album=album.pk, image__in=ids))
        before, after = {"image_ids": sorted(ids)}, {"removed": removed}
        has_cover = Album.objects.filter(pk=album.pk, cover__in=ids)
        if cover := has_cover.values_list("cover", flat=True).first():
            has_cover.update(cover=None)
            before, after = before | {"cover": cover}, after | {"cover": None}
        refresh_summaries([album.pk])
        audit.record("album.remove_images", album, before=before, after=after)
    return removed


def transfer_images(images: Sequence[Image], *, out_of: Album, album: Album) -> int:
    """Append images to an album, in the order given, and take them out of another one; return how many are new there.

    Raises:
        AlbumGone: somebody deleted one of them in the meantime.
    """
    with transaction.atomic():
        lock_albums([out_of, album])
        new = add_images_to_album(album, images)
        remove_images_from_album(out_of, images)
    return new


def move_images(album: Album, images: Sequence[Image], *, before: Image | None) -> None:
    """Put images of an album, in the order given, in front of another one, or at the end.

    Only what stands behind the new place is renumbered, by one statement.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        ImageNotInAlbum: one of them is not there.
        Invalid: they cannot be put in front of one of themselves.
    """
    moved = list(dict.fromkeys(image.pk for image in images))
    with transaction.atomic():
        lock_album(album)
        places = dict(album.memberships.filter(image__in=moved).values_list("image_id", "pk"))
        for index, image in enumerate(images):
            if image.pk not in places:
                raise ImageNotInAlbum(pointer=f"/image_ids/{index}")
        behind = next_position(album)
        first = behind if before is None else _make_room(album, before, moved)
        AlbumImage.objects.bulk_update(
            (AlbumImage(pk=places[pk], position=position) for position, pk in enumerate(moved, start=first)),
            ["position"],
        )
        refresh_summaries([album.pk])
        audit.record("album.move_images", album, after={"image_ids": moved, "before": before and before.pk})


def place_images(album: Album, positions: Mapping[uuid.UUID, int]) -> None:
    """Give images of an album other positions. Those that end at the same one are told apart by their ids.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
    """
    with transaction.atomic():
        lock_album(album)
        places = {place.image_id: place for place in album.memberships.filter(image__in=positions)}
        before = {str(pk): place.position for pk, place in places.items()}
        for pk, place in places.items():
            place.position = positions[pk]
        AlbumImage.objects.bulk_update(places.values(), ["position"])
        refresh_summaries([album.pk])
        after = {str(pk): positions[pk] for pk in places}
        audit.record("album.place_images", album, before={"positions": before}, after={"positions": after})


def set_cover(album: Album, image: Image | None, *, pointer: str = "/image") -> Album:
    """Choose the image that stands for an album, or none: then the first one does.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        ImageNotInAlbum: it is not there. ``pointer`` says which field named it.
    """
    with transaction.atomic():
        lock_album(album)
        if image and not album.memberships.filter(image=image.pk, image__deleted_at=None).exists():
            raise ImageNotInAlbum(pointer=pointer)
        before, album.cover = album.cover_id, image
        Album.objects.filter(pk=album.pk).update(cover=image)
        audit.record("album.set_cover", album, before={"cover": before}, after={"cover": album.cover_id})
    return album


def merge_albums(album: Album, others: Sequence[Album]) -> int:
    """Move the images of other albums behind those of this one, in their order, and delete the others.

    What is in several of them keeps its first place, and what was to come into one of them comes here. Returns how many images were not there yet.

    Raises:
        AlbumGone: somebody deleted one of them in the meantime.
        MergedWithItself: the album is among the others.
    """
    for index, other in enumerate(others):
        if other.pk == album.pk:
            raise MergedWithItself(pointer=f"/albums/{index}")
    others = list({other.pk: other for other in others}.values())
    with transaction.atomic():
        lock_albums([album, *others])
        moved = 0
        for other in others:
            next_position(other)  # is not too far out afterwards
            moved += (
                AlbumImage.objects.filter(album=other.pk)
                .exclude(image__in=AlbumImage.objects.filter(album=album.pk).values("image"))
                .update(album=album, position=F("position") + next_position(album))
            )
        albums_merged.send(Album, album=album, others=others)
        merged = {str(other.pk): other.name for other in others}
        for other in others:
            drop_places(AlbumImage.objects.filter(album=other.pk))  # what was here already
            other.delete()
        refresh_summaries([album.pk])
        audit.record("album.merge", album, before={"albums": merged}, after={"images": moved})
    return moved


def _make_room(album: Album, before: Image, moved: Collection[object]) -> int:
    """Shift an image of an album and all behind it, but for those that move; return the first free position.

    Raises:
        ImageNotInAlbum: it is not there.
        Invalid: it is one of those that move.
    """
    if before.pk in moved:
        raise Invalid("Images cannot be put in front of themselves.", pointer="/before")
    at = album.memberships.filter(image=before.pk).values_list("position", flat=True).first()
    if at is None:
        raise ImageNotInAlbum(pointer="/before")
    # Others may have the same position and stand in front of it by their ids: they keep it, and so do not move.
    behind = Q(position__gt=at) | Q(position=at, image__gte=before.pk)
    album.memberships.filter(behind).exclude(image__in=moved).update(position=F("position") + len(moved) + 1)
    return at + 1
