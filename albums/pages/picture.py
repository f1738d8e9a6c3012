"""The page of one picture."""

import uuid
from dataclasses import dataclass

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from albums import links
from albums.models import Album, Image, ImageQuerySet, Label, LabelKind, LabelOrigin
from albums.pages.rendering import render_page, share_image
from albums.pages.tiles import TINY_PIXELS, srcset_of, thumbnail_sizes

ALBUMS_SHOWN = 24


@dataclass(frozen=True)
class Said:
    """A label, and who says so."""

    label: Label

    @property
    def origin(self) -> str:
        if self.label.origin == LabelOrigin.MODEL:
            sure = self.label.confidence
            return self.label.model if sure is None else f"{self.label.model}, {sure:.0%}"
        return str(LabelOrigin(self.label.origin).label).lower()


@require_safe
def picture(request: HttpRequest, image_id: uuid.UUID) -> HttpResponse:
    """Show a picture, how it was made, what is said about it, and its neighbours in the album it is looked at in."""
    image = get_object_or_404(Image.objects.visible_to(request.user).select_related("owner"), pk=image_id)
    albums = list(
        Album.objects.visible_to(request.user)
        .filter(memberships__image=image)
        .newest_first()[: ALBUMS_SHOWN + 1]
    )
    inside = _album_of(request, image)
    previous, following = _neighbours(request, image, inside)
    labels = [Said(label) for label in image.labels.order_by("kind", "created_at", "pk")]
    sizes = thumbnail_sizes()
    context = {
        "image": image,
        "title": image.prompt or image.name,
        "album": inside,
        "albums": albums[:ALBUMS_SHOWN],
        "has_more_albums": len(albums) > ALBUMS_SHOWN,
        "previous": _link(previous, inside),
        "following": _link(following, inside),
        "captions": [said for said in labels if said.label.kind == LabelKind.CAPTION],
        "tags": [said for said in labels if said.label.kind == LabelKind.TAG],
        "is_tiny": max(image.width, image.height) <= TINY_PIXELS,
        "is_flagged": image.nsfw == Image.Nsfw.FLAGGED,
        "thumbnails": srcset_of(image, [sizes[-1]]) if max(image.width, image.height) > sizes[-1] else "",
        "share_image": share_image(request, image, sizes[-1]),
    }
    return render_page(request, "albums/picture.html", context)


def _album_of(request: HttpRequest, image: Image) -> Album | None:
    """Return the album that the address names, if it holds the image and may be seen."""
    try:
        wanted = uuid.UUID(request.GET.get("album", ""))
    except ValueError:
        return None
    return Album.objects.visible_to(request.user).filter(pk=wanted, memberships__image=image).first()


def _neighbours(
    request: HttpRequest, image: Image, album: Album | None
) -> tuple[uuid.UUID | None, uuid.UUID | None]:
    """Return the pictures before and behind one: in an album by its order, elsewhere by age."""
    images = Image.objects.shown_to(request.user)
    if album is None:
        before, behind = _around_in_time(images, image)
    else:
        before, behind = _around_in_album(images, image, album)
    return before.values_list("pk", flat=True).first(), behind.values_list("pk", flat=True).first()


def _around_in_album(
    images: ImageQuerySet, image: Image, album: Album
) -> tuple[ImageQuerySet, ImageQuerySet]:
    place = album.memberships.filter(image=image).values_list("position", flat=True).first()
    if place is None:  # taken out a moment ago
        return images.none(), images.none()
    images = images.in_album(album)
    before = images.filter(Q(position__lte=place), Q(position__lt=place) | Q(id__lt=image.pk))
    behind = images.filter(Q(position__gte=place), Q(position__gt=place) | Q(id__gt=image.pk))
    return before.order_by("-position", "-id"), behind.order_by("position", "id")


def _around_in_time(images: ImageQuerySet, image: Image) -> tuple[ImageQuerySet, ImageQuerySet]:
    made = image.created_at
    before = images.filter(Q(created_at__gte=made), Q(created_at__gt=made) | Q(id__gt=image.pk))
    behind = images.filter(Q(created_at__lte=made), Q(created_at__lt=made) | Q(id__lt=image.pk))
    return before.order_by("created_at", "id"), behind.order_by("-created_at", "-id")


def _link(image_id: uuid.UUID | None, album: Album | None) -> str:
    if image_id is None:
        return ""
    return links.page_url(image_id) + (f"?{urlencode({'album': album.pk})}" if album else "")
