"""Serving a stored file: validators, one range, and headers that leave a browser nothing to guess.

Who may see the file has been decided before anything here runs. Where nginx or a bucket can send the bytes, only the
address leaves this process.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header
from rest_framework import exceptions, status
from rest_framework.request import Request

from albums.models import Visibility
from imagehub import storage

SINGLE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
UNFIT_FOR_FILE_NAMES = re.compile(r"[^\w !#$%&()+,.;=@\[\]^`{}~-]+")
CACHE_CONTROL: dict[str, str] = {
    # Bytes never change under an address, but who may see them can: ask again after a while.
    Visibility.PUBLIC: "public, max-age=3600",
    Visibility.PRIVATE: "private, no-cache",
}
EMBEDDED_BY: dict[str, str] = {Visibility.PUBLIC: "cross-origin", Visibility.PRIVATE: "same-site"}
"""Whose pages may show a file, by ``Cross-Origin-Resource-Policy``."""


class AnswersFiles:
    """A view some of whose actions answer with a file, whatever the caller accepts; errors are JSON all the same."""

    file_actions: frozenset[str] = frozenset()
    action: str | None

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:  # noqa: FBT001, FBT002
        force = force or self.action in self.file_actions
        return super().perform_content_negotiation(request, force=force)  # type: ignore[misc]


class RangeNotSatisfiable(exceptions.APIException):
    status_code = status.HTTP_416_REQUESTED_RANGE_NOT_SATISFIABLE
    default_code = "range_not_satisfiable"
    default_detail = "The file has no bytes in this range."

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


@dataclass(frozen=True)
class ServedFile:
    """A stored file, and what is said about it."""

    stored: str
    etag: str
    content_type: str
    name: str
    visibility: str

    def respond(self, request: HttpRequest) -> HttpResponseBase:
        """Answer with the file, a part of it, where it is, or the news that the caller has it already.

        Raises:
            FileNotFoundError: it is not there.
            RangeNotSatisfiable: the range lies behind its end.
            StorageUnreachable: the bucket does not answer.
        """
        response: HttpResponseBase | None = get_conditional_response(request, etag=self.etag)
        if response is None and request.method == "GET" and (url := self._signed_url()):
            return self._elsewhere(url)
        response = response or self._described(self._content(request))
        response["ETag"] = self.etag
        response["Cache-Control"] = CACHE_CONTROL[self.visibility]
        return response

    def _content(self, request: HttpRequest) -> HttpResponseBase:
        size = storage.size(self.stored)
        if settings.ACCEL_PREFIX and storage.is_local():
            return HttpResponse(headers={"X-Accel-Redirect": settings.ACCEL_PREFIX + quote(self.stored)})
        wanted = requested_range(request, size=size, etag=self.etag)
        response: HttpResponseBase
        if request.method == "HEAD":
            response = HttpResponse()
        elif wanted is not None:
            response = StreamingHttpResponse(
                storage.read_part(self.stored, wanted), status=status.HTTP_206_PARTIAL_CONTENT
            )
            response["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
        else:  # not Django's FileResponse: its blocks of 4 KiB cost ten times the processor time
            response = StreamingHttpResponse(storage.read_part(self.stored, range(size)))
        response["Content-Length"] = size if wanted is None else len(wanted)
        response["Accept-Ranges"] = "bytes"
        return response

    def _described(self, response: HttpResponseBase) -> HttpResponseBase:
        response["Content-Type"] = self.content_type
        response["Content-Disposition"] = self._disposition
        response["X-Content-Type-Options"] = "nosniff"
        response["Cross-Origin-Resource-Policy"] = EMBEDDED_BY[self.visibility]
        return response

    @property
    def _disposition(self) -> str:
        return content_disposition_header(False, self.name)  # type: ignore[return-value]  # noqa: FBT003

    def _signed_url(self) -> str | None:
        return storage.signed_url(
            self.stored,
            content_type=self.content_type,
            disposition=self._disposition,
            cache_control=CACHE_CONTROL[self.visibility],
        )

    def _elsewhere(self, url: str) -> HttpResponseBase:
        """Send the caller to the bucket. An address that opens a private file is kept by nobody."""
        response = HttpResponseRedirect(url)
        if self.visibility == Visibility.PUBLIC:
            # Half its life, so that no copy of this answer leads to an address that has run out.
            life = settings.MEDIA_BUCKET["querystring_expire"] // 2
            response["Cache-Control"] = f"public, max-age={life}"
        else:
            response["Cache-Control"] = "private, no-store"
        response["Cross-Origin-Resource-Policy"] = EMBEDDED_BY[self.visibility]
        return response


def file_name(name: str, suffix: str) -> str:
    """Return a name that is safe on every system, whatever the image is called."""
    stem = UNFIT_FOR_FILE_NAMES.sub("_", name.removesuffix(suffix)).strip(" ._")
    return f"{stem[:100] or 'image'}{suffix}"


def requested_range(request: HttpRequest, *, size: int, etag: str) -> range | None:
    """Return the part of a file that is asked for, or None for the whole.

    Anything but one range of bytes is answered with the whole file, as RFC 9110 allows.

    Raises:
        RangeNotSatisfiable: it lies behind the end of the file.
    """
    found = SINGLE_RANGE.fullmatch(request.headers.get("Range", "").strip())
    if request.method != "GET" or not found or request.headers.get("If-Range", etag) != etag:
        return None
    first, last = found.groups()
    if first:
        wanted = range(int(first), min(int(last) + 1, size) if last else size)
        if last and int(last) < int(first):
            return None
    elif last:
        wanted = range(max(size - int(last), 0), size)
    else:
        return None
    if not wanted:
        raise RangeNotSatisfiable(size)
    return wanted
