"""The list of images of the API, for pages: the same filters, search, order and cursors."""

import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.http import Http404, HttpRequest, QueryDict
from django.urls import reverse
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from albums.api.image_views import ImageViewSet
from albums.models import Image
from imagehub.errors import Invalid

PAGE_SIZE = 60


@dataclass(frozen=True)
class Listing:
    """One page of a list, and where the next one is: for a script, and for a link."""

    images: list[Image]
    next_url: str
    next_cursor: str


def list_images(
    request: HttpRequest, *, album: uuid.UUID | None = None, search: str = "", cursor: str = ""
) -> Listing:
    """Return what the API would list for whoever asks for a page; for a search that it refuses, nothing.

    Raises:
        Http404: nobody was ever sent to this place in the list.
    """
    query = QueryDict(mutable=True)
    query["limit"] = str(PAGE_SIZE)
    for name, value in (("album", album), ("q", search), ("cursor", cursor)):
        if value:
            query[name] = str(value)
    view = _view(request, query)
    try:
        rows = view.paginate_queryset(view.filter_queryset(view.get_queryset()))
    except (Invalid, ValidationError) as error:
        if search and not cursor:  # too many words
            return Listing([], next_url="", next_cursor="")
        raise Http404 from error
    url = urlsplit(view.paginator.get_paginated_response([]).data["next"] or "")
    return Listing(
        images=list(rows or []),
        next_url=f"{url.path}?{url.query}" if url.path else "",
        next_cursor=parse_qs(url.query).get("cursor", [""])[0],
    )


def _view(request: HttpRequest, query: QueryDict) -> ImageViewSet:
    """Return the view of the API as it would be asked by this page."""
    inner = HttpRequest()
    inner.method = "GET"
    inner.path = inner.path_info = reverse("image-list")
    inner.META = request.META | {"QUERY_STRING": query.urlencode()}
    inner.GET = query
    asked: Any = Request(inner)
    asked.user = request.user
    return ImageViewSet(request=asked, action="list", kwargs={}, format_kwarg=None, detail=False)
