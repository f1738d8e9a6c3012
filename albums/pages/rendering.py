"""What all pages have in common."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.templatetags.static import static

from albums import links
from albums.models import Image, Visibility, may_see_everything
from imagehub.accounts import google


def render_page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """Render a page, and let the popup of the sign-in tell it that it is done."""
    response = render(request, template, {"is_staff": may_see_everything(request.user)} | context)
    if google.is_configured():
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin-allow-popups"
    return response


def share_image(request: HttpRequest, image: Image | None, size: int) -> str:
    """Return the address of the picture that stands for a page where somebody shares its link.

    Whoever asks, it is one that everybody may see and nobody has flagged, or a neutral one: what a page shows its
    owner must not end up in a chat.
    """
    is_harmless = (
        image is not None
        and image.visibility == Visibility.PUBLIC
        and image.nsfw != Image.Nsfw.FLAGGED
        and image.deleted_at is None
    )
    path = links.thumbnail_url(image.pk, size) if image and is_harmless else static("albums/share.png")
    return request.build_absolute_uri(path)
