"""The contact sheet: what a visitor sees first."""

import uuid
from datetime import UTC, datetime

from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from albums.models import Album, Image, ImageQuerySet, may_see_everything
from imagehub.accounts import google

PAGE_SIZE = 60
ALBUMS_SHOWN = 12
TINY_PIXELS = 256  # pictures up to this side are shown as they are: a thumbnail would only blur them


@require_safe
def contact_sheet(request: HttpRequest, album_id: uuid.UUID | None = None) -> HttpResponse:
    """Show the newest images, or those of one album in its order."""
    albums = Album.objects.visible_to(request.user)
    album = get_object_or_404(albums, pk=album_id) if album_id else None
    after = request.GET.get("after", "")

    images = _ordered(Image.objects.visible_to(request.user), album)
    if after:
        images = _behind(images, album, after)
    page = list(images[: PAGE_SIZE + 1])
    shown, has_more = page[:PAGE_SIZE], len(page) > PAGE_SIZE

    response = render(
        request,
        "albums/contact_sheet.html",
        {
            "album": album,
            "albums": albums.newest_first()[:ALBUMS_SHOWN],
            "images": shown,
            "is_first_page": not after,
            "next_page": urlencode({"after": _place(shown[-1], album)}) if has_more else "",
            "tiny_pixels": TINY_PIXELS,
            "is_staff": may_see_everything(request.user),
        },
    )
    if google.is_configured():  # or the popup of the sign-in could not tell this page that it is done
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin-allow-popups"
    return response


def _ordered(images: ImageQuerySet, album: Album | None) -> ImageQuerySet:
    if album:
        return images.in_album(album).order_by("position", "id")
    return images.newest_first()


def _place(image: Image, album: Album | None) -> str:
    """Return the place of an image on the sheet, as an address can hold it."""
    return f"{image.position if album else image.created_at.isoformat()}~{image.pk}"


def _behind(images: ImageQuerySet, album: Album | None, place: str) -> ImageQuerySet:
    """Keep what stands behind a place. The first condition is the one that an index can serve.

    Raises:
        Http404: nobody was ever sent to this place.
    """
    key, _, pk = place.partition("~")
    try:
        last_id = uuid.UUID(pk)
        last = int(key) if album else datetime.fromisoformat(key).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Http404 from error
    if album:
        return images.filter(Q(position__gte=last), Q(position__gt=last) | Q(id__gt=last_id))
    return images.filter(Q(created_at__lte=last), Q(created_at__lt=last) | Q(id__lt=last_id))
