"""The pictures that stand for albums."""

import uuid
from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.db.models import Func, IntegerField

from albums import links
from albums.models import Image, may_see_everything
from albums.models.ids import AmongIds

_SOME_ID = uuid.UUID(int=0)
_COUNT = Func(template="COUNT(*)", output_field=IntegerField())


class Previews:
    """What somebody is shown of the images of some albums, found by one query for all.

    Whatever the album's own list says, nobody is shown an image that they may not see; nor is one that is flagged
    put before everybody's eyes. An album without a cover to show has its first image for one.

    Albums are rows with the columns of ``columns_for``, be they instances or not.
    """

    def __init__(self, albums: Sequence[Any], *, user: AbstractUser | AnonymousUser) -> None:
        self._count, self._first = self.columns_for(user)
        wanted = {pk for album in albums for pk in getattr(album, self._first)}
        wanted.update(str(album.cover_id) for album in albums if album.cover_id)
        self._visible = _visible(wanted, user)
        # For each of hundreds of images to be asked where it is served would cost more than the rest of a page.
        self._file = links.file_url(_SOME_ID).split(str(_SOME_ID))
        self._thumbnail = links.thumbnail_url(_SOME_ID).split(str(_SOME_ID))

    @staticmethod
    def columns_for(user: AbstractUser | AnonymousUser) -> tuple[str, str]:
        """Return the columns of an album that hold how many images somebody is shown, and which are the first."""
        if may_see_everything(user):
            return "total_images", "preview_ids"
        return "public_images", "public_preview_ids"

    def count_of(self, album: Any) -> int:
        return getattr(album, self._count)

    def of(self, album: Any) -> list[dict[str, str]]:
        """Return the first images of an album, as the API shows them."""
        return [self._preview(pk) for pk in getattr(album, self._first) if pk in self._visible]

    def cover_of(self, album: Any) -> dict[str, str] | None:
        """Return its cover."""
        if album.cover_id and str(album.cover_id) in self._visible:
            return self._preview(str(album.cover_id))
        return next((self._preview(pk) for pk in getattr(album, self._first) if pk in self._visible), None)

    def _preview(self, pk: str) -> dict[str, str]:
        return {"id": pk, "file_url": pk.join(self._file), "thumbnail_url": pk.join(self._thumbnail)}


def _visible(wanted: set[str], user: AbstractUser | AnonymousUser) -> set[str]:
    if not wanted:
        return wanted
    images = Image.objects.shown_to(user).filter(AmongIds(wanted))
    # Nearly always all of them are, and to count them is many times faster than to fetch them. `count()` would first
    # look for aggregates that its query does not have, which takes longer than the database does.
    if images.values_list(_COUNT, flat=True)[0] == len(wanted):
        return wanted
    return {str(pk) for pk in images.values_list("pk", flat=True)}
