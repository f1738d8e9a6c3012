"""Serving a stored file: validators, one range, and headers that leave a browser nothing to guess."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header
from rest_framework import exceptions, status

from albums.models import Visibility

CHUNK_BYTES = 64 * 1024
SINGLE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
UNFIT_FOR_FILE_NAMES = re.compile(r"[^\w !#$%&()+,.;=@\[\]^`{}~-]+")
CACHE_CONTROL: dict[str, str] = {
    # Bytes never change under an address, but who may see them can: ask again after a while.
    Visibility.PUBLIC: "public, max-age=3600",
    Visibility.PRIVATE: "private, no-cache",
}


class RangeNotSatisfiable(exceptions.APIException):
    status_code = status.HTTP_416_REQUESTED_RANGE_NOT_SATISFIABLE
    default_code = "range_not_satisfiable"
    default_detail = "The file has no bytes in this range."

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


@dataclass(frozen=True)
class ServedFile:
    """A file, and what is said about it."""

    path: Path
    etag: str
    content_type: str
    name: str
    visibility: str

    def respond(self, request: HttpRequest) -> HttpResponseBase:
        """Answer with the file, a part of it, or the news that the caller has it already.

        Raises:
            FileNotFoundError: it is not there.
            RangeNotSatisfiable: the range lies behind its end.
        """
        response = get_conditional_response(request, etag=self.etag) or self._content(request)
        response["ETag"] = self.etag
        response["Cache-Control"] = CACHE_CONTROL[self.visibility]
        return response

    def _content(self, request: HttpRequest) -> HttpResponseBase:
        size = self.path.stat().st_size
        wanted = requested_range(request, size=size, etag=self.etag)
        file = self.path.open("rb")
        response: StreamingHttpResponse
        if wanted is None:
            response = FileResponse(file)
        else:
            response = StreamingHttpResponse(_chunks(file, wanted), status=status.HTTP_206_PARTIAL_CONTENT)
            response["Content-Length"] = len(wanted)
            response["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
        response["Content-Type"] = self.content_type
        response["Content-Disposition"] = content_disposition_header(False, self.name)  # noqa: FBT003
        response["X-Content-Type-Options"] = "nosniff"
        response["Accept-Ranges"] = "bytes"
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


def _chunks(file: BinaryIO, wanted: range) -> Iterator[bytes]:
    with file:
        file.seek(wanted.start)
        left = len(wanted)
        while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
