"""Pages that show many pictures."""

import uuid
from typing import Any

from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from albums.models import Album, AlbumQuerySet, Image, Visibility
from albums.pages.listing import Listing, list_images
from albums.pages.places import read_place, write_place
from albums.pages.rendering import render_page, share_image
from albums.pages.tiles import thumbnail_sizes, tiles_of
from albums.words import LONGEST_SEARCH

ALBUMS_IN_FRONT = 12
ALBUMS_ON_PAGE = 48


@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """Show the newest albums and pictures, or the pictures that are searched for."""
    search, cursor = _search(request), request.GET.get("cursor", "")
    is_start = not (search or cursor)
    albums = list(_albums(request)[: ALBUMS_IN_FRONT + 1]) if is_start else []
    context = {
        "albums": _cards(albums[:ALBUMS_IN_FRONT], request.user),
        "has_more_albums": len(albums) > ALBUMS_IN_FRONT,
        "share_image": share_image(request, None, 0),
    }
    listing = list_images(request, search=search, cursor=cursor)
    return render_page(request, "albums/front.html", context | _pictures(request, listing))


@require_safe
def album(request: HttpRequest, album_id: uuid.UUID) -> HttpResponse:
    """Show the pictures of an album in its order, or those among them that are searched for."""
    shown = get_object_or_404(Album.objects.visible_to(request.user).select_related("cover"), pk=album_id)
    search, cursor = _search(request), request.GET.get("cursor", "")
    listing = list_images(request, album=shown.pk, search=search, cursor=cursor)
    sizes = thumbnail_sizes()
    stands_for_it = shown.cover or (listing.images[0] if listing.images else None)
    context = {
        "album": shown,
        "image_count": shown.image_count_for(request.user),
        "share_image": share_image(
            request, stands_for_it if shown.visibility == Visibility.PUBLIC else None, sizes[-1]
        ),
    }
    return render_page(
        request, "albums/album.html", context | _pictures(request, listing, query=f"?album={shown.pk}")
    )


@require_safe
def albums(request: HttpRequest) -> HttpResponse:
    """Show all albums, the newest first."""
    shown, after = _albums(request), request.GET.get("after", "")
    if after:
        created_at, pk = read_place(after)
        shown = shown.filter(Q(created_at__lte=created_at), Q(created_at__lt=created_at) | Q(id__lt=pk))
    page = list(shown[: ALBUMS_ON_PAGE + 1])
    is_more = len(page) > ALBUMS_ON_PAGE
    page = page[:ALBUMS_ON_PAGE]
    context = {
        "albums": _cards(page, request.user),
        "is_first_page": not after,
        "next_page": urlencode({"after": write_place(page[-1])}) if is_more else "",
        "share_image": share_image(request, None, 0),
    }
    return render_page(request, "albums/albums.html", context)


def _albums(request: HttpRequest) -> AlbumQuerySet:
    return Album.objects.visible_to(request.user).newest_first()


def _search(request: HttpRequest) -> str:
    return request.GET.get("q", "").strip()[:LONGEST_SEARCH]


def _pictures(request: HttpRequest, listing: Listing, query: str = "") -> dict[str, Any]:
    """Return what the templates need to show a list, its next page and its search."""
    search, cursor = _search(request), request.GET.get("cursor", "")
    parts = {"q": search, "cursor": listing.next_cursor}
    return {
        "tiles": tiles_of(listing.images, query=query),
        "picture_query": query,
        "next_url": listing.next_url,
        "next_page": urlencode({name: value for name, value in parts.items() if value})
        if listing.next_url
        else "",
        "first_page": urlencode({"q": search}) if search else "",
        "is_first_page": not cursor,
        "search": search,
        "thumbnail_sizes": thumbnail_sizes(),
    }


def _cards(albums: list[Album], user: AbstractUser | AnonymousUser) -> list[dict[str, Any]]:
    """Return albums with the pictures that stand for them, by one query. What is flagged stands for nothing."""
    previews = {album.pk: [uuid.UUID(pk) for pk in album.preview_ids_for(user)] for album in albums}
    wanted = {album.cover_id for album in albums}.union(*previews.values()) - {None}
    shown = Image.objects.visible_to(user).unflagged().in_bulk(wanted) if wanted else {}
    cards = []
    for album in albums:
        ids = dict.fromkeys([album.cover_id, *previews[album.pk]])
        pictures = [shown[pk] for pk in ids if pk in shown][:4]
        cards.append(
            {
                "album": album,
                "pictures": tiles_of(pictures),
                "image_count": album.image_count_for(user),
            }
        )
    return cards
