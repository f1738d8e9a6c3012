"""Everything that writes albums, and appends images to them. See :mod:`albums.services.places` for their order."""

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import Count, F, Max, Q
from django.utils import timezone

from albums.models import PREVIEWS, Album, AlbumImage, Image, MembershipQuerySet, Visibility
from albums.set_templates import validate_set_template
from imagehub.accounts import audit
from imagehub.errors import Conflict

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

PUBLIC_IMAGE = Q(image__visibility=Visibility.PUBLIC) & ~Q(image__nsfw=Image.Nsfw.FLAGGED)
"""What stands for an album before everybody's eyes."""

CLONED = (
    "description", "kind", "is_set_template", "set_rows", "base_prompt", "prompt_template", "style_suffix",
    "example_theme", "negative_prompt", "width", "height", "loras",
)  # fmt: skip
"""What a copy of an album has of it."""

FAR = 10**9
"""A position beyond which an album is numbered anew: two such albums can still be merged."""

LONGEST_NAME = Album._meta.get_field("name").max_length or 0


class AlbumGone(Conflict):
    code = "album_gone"
    title = "The album has been deleted"


def create_album(album: Album) -> Album:
    """Save a new album.

    Raises:
        Invalid: no set can be made from its template.
        ValidationError: a field is out of range.
    """
    _check(album)
    album.save(force_insert=True)
    return album


def update_album(album: Album, **changes: Any) -> Album:
    """Change fields of an album. What others have changed in the meantime stays.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        Invalid: no set could be made from its template any more.
        ValidationError: a field is out of range.
    """
    with transaction.atomic():
        lock_album(album)
        album.refresh_from_db()
        for name, value in changes.items():
            setattr(album, name, value)
        _check(album)
        album.save(update_fields=[*changes, "updated_at"])
    return album


def delete_album(album: Album) -> None:
    """Delete an album and the places in it. The images stay where else they are.

    Raises:
        AlbumGone: somebody else was faster.
    """
    with transaction.atomic():
        lock_album(album)
        drop_places(AlbumImage.objects.filter(album=album.pk))
        album.delete()


def clone_album(album: Album, *, name: str = "", owner: "AbstractUser | None") -> Album:
    """Return a new private album that is described as another one is, set template and all, and has no images.

    Without a name it is called after the other one.

    Raises:
        Invalid: see :func:`create_album`.
        ValidationError: the name is too long.
    """
    copy = Album(name=name or f"Copy of {album.name}"[:LONGEST_NAME], owner=owner)
    for field in CLONED:
        setattr(copy, field, getattr(album, field))
    return create_album(copy)


def add_images_to_album(album: Album, images: Iterable[Image], *, position: int | None = None) -> int:
    """Append images to an album in the order given; return how many were not there yet. The trash is left out.

    With a ``position`` they stand from there on; who is there already is not moved (see :func:`make_room`).

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
    """
    wanted = {image.pk: image for image in images}
    with transaction.atomic():
        lock_album(album)
        new = set(
            Image.objects.live()
            .filter(pk__in=wanted)
            .exclude(memberships__album=album)
            .values_list("pk", flat=True)
        )
        wanted = {pk: image for pk, image in wanted.items() if pk in new}
        first = next_position(album) if position is None else position
        AlbumImage.objects.bulk_create(
            AlbumImage(album=album, image=image, position=position)
            for position, image in enumerate(wanted.values(), start=first)
        )
        if wanted:
            refresh_summaries([album.pk])
        if audit.is_change_by_user():  # a job's own entry says where its pictures went
            audit.record("album.add_images", album, after={"image_ids": list(wanted)})
    return len(wanted)


def refresh_summaries(album_ids: Iterable[uuid.UUID]) -> None:
    """Count the images of albums again, and choose those that stand for them.

    To be called in the transaction of every change to the places of images or to what makes an image visible, after
    the change. Reads each album once.
    """
    with transaction.atomic():
        for pk in sorted(set(album_ids)):  # in one order, so that two who do this never wait for each other
            # The lock of this album on PostgreSQL: whoever counts after us sees what we did.
            if Album.objects.filter(pk=pk).update(updated_at=timezone.now()):
                Album.objects.filter(pk=pk).update(**summary_of(pk))


def summary_of(album_id: uuid.UUID) -> dict[str, Any]:
    """Count the images of an album, and find those that stand for it: what its row should say."""
    places = AlbumImage.objects.filter(album=album_id, image__deleted_at=None)
    counts = places.aggregate(total=Count("pk"), public=Count("pk", filter=PUBLIC_IMAGE))
    return {
        "total_images": counts["total"],
        "public_images": counts["public"],
        "preview_ids": _first_ids(places),
        "public_preview_ids": _first_ids(places.filter(PUBLIC_IMAGE)),
    }


def next_position(album: Album) -> int:
    """Return the first position behind all places of an album, whose lock is held.

    There is always room behind it: places that somebody has put too far out are numbered anew, in their order.
    """
    last = album.memberships.aggregate(last=Max("position"))["last"]
    if last is None:
        return 0
    return last + 1 if last < FAR else _number_places(album)


def make_room(album: Album, at: int) -> None:
    """Shift what stands at a position of an album, whose lock is held, and all behind it by one, if anything is there."""
    if album.memberships.filter(position=at).exists():
        album.memberships.filter(position__gte=at).update(position=F("position") + 1)


def _number_places(album: Album) -> int:
    """Give the places of an album the positions from 0 on; return how many there are."""
    places = album.memberships.in_order().values_list("pk", flat=True)
    numbered = [AlbumImage(pk=pk, position=position) for position, pk in enumerate(places)]
    AlbumImage.objects.bulk_update(numbered, ["position"], batch_size=1000)
    return len(numbered)


def drop_places(places: MembershipQuerySet) -> int:
    """Delete places by one statement, however many; return how many there were.

    Nothing hangs on them, and nobody needs to hear of each: Django would load them all to tell.
    """
    return places._raw_delete(places.db)


def lock_album(album: Album) -> None:
    """Take the lock of an album on PostgreSQL, of the database on SQLite: whoever appends next waits, and then sees.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
    """
    if not Album.objects.filter(pk=album.pk).update(updated_at=timezone.now()):
        raise AlbumGone(f"The album “{album}” has been deleted.")


def lock_albums(albums: Iterable[Album]) -> None:
    """Do the same for several, in one order, so that two who do this never wait for each other.

    Raises:
        AlbumGone: somebody deleted one of them in the meantime.
    """
    for album in sorted(albums, key=lambda album: album.pk):
        lock_album(album)


def _first_ids(places: MembershipQuerySet) -> list[str]:
    return [str(pk) for pk in places.in_order().values_list("image_id", flat=True)[:PREVIEWS]]


def _check(album: Album) -> None:
    album.clean_fields(exclude=["owner", "cover"])
    validate_set_template(album)
