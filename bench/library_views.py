"""The bound of what Django can do: the lists as bare views, one query each, with neither DRF nor middleware."""

from typing import Any

from django.db.models import Q
from django.http import HttpRequest, JsonResponse

from albums.models import Album, AlbumImage, Image

PAGE = 50
IMAGE = (
    "id", "name", "storage_name", "width", "height", "size_bytes", "format", "visibility", "nsfw", "starred", "rating",
    "prompt", "negative_prompt", "seed", "steps", "guidance_scale", "scheduler", "base_model", "loras", "source_kind",
    "source_id", "placeholder", "created_at",
)  # fmt: skip
ALBUM = (
    "id",
    "name",
    "description",
    "kind",
    "visibility",
    "public_images",
    "public_preview_ids",
    "created_at",
)


def images(request: HttpRequest) -> JsonResponse:
    """The first page of the public images, or the page behind ``?after=TIME~ID``."""
    rows = Image.objects.filter(visibility="public", deleted_at=None).exclude(nsfw="flagged")
    if after := request.GET.get("after"):
        time, _, pk = after.partition("~")
        rows = rows.filter(Q(created_at__lte=time), Q(created_at__lt=time) | Q(pk__lt=pk))
    return _answer(rows.order_by("-created_at", "-id").values(*IMAGE)[:PAGE])


def album(request: HttpRequest, pk: str) -> JsonResponse:
    """The first fifty of an album."""
    rows = AlbumImage.objects.filter(album=pk, image__visibility="public", image__deleted_at=None)
    rows = rows.exclude(image__nsfw="flagged").order_by("position", "image_id")
    return _answer(rows.values(*(f"image__{name}" for name in IMAGE))[:PAGE])


def albums(request: HttpRequest) -> JsonResponse:
    """The first page of the public albums, with their stored counts and the ids of their previews."""
    return _answer(
        Album.objects.filter(visibility="public").order_by("-created_at", "-id").values(*ALBUM)[:PAGE]
    )


def _answer(rows: Any) -> JsonResponse:
    response = JsonResponse({"results": list(rows)})
    response["Content-Length"] = str(len(response.content))  # the load generator reads by it
    return response
