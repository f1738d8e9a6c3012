"""The pictures that stand for an album."""

from collections.abc import Iterable

from django.contrib.auth.models import AbstractUser, AnonymousUser

from albums.models import PREVIEW_IDS, Album, Image


def attach_previews(albums: Iterable[Album], *, user: AbstractUser | AnonymousUser) -> None:
    """Put ``visible_cover`` and ``preview_images`` on albums read ``with_preview_ids``, by one query for all."""
    albums = list(albums)
    previews = {album.pk: [getattr(album, name) for name in PREVIEW_IDS] for album in albums}
    wanted = {album.cover_id for album in albums}.union(*previews.values()) - {None}
    images = Image.objects.visible_to(user).only("id").in_bulk(wanted) if wanted else {}
    for album in albums:
        album.visible_cover = images.get(album.cover_id)
        album.preview_images = [images[pk] for pk in previews[album.pk] if pk in images]
