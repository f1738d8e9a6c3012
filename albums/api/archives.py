"""Downloading an album: a response that lasts, and what ends it."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header
from rest_framework.request import Request

from albums.api.files import file_name
from albums.models import Album, Image
from albums.services.archive import Archive, archive_album
from imagehub.concurrency import hold_slot
from imagehub.config import get_config

LONGEST_SECONDS = 4 * 3600
"""A download holds a thread. After so long it is broken off, however slowly it still goes on."""


class DownloadTookTooLong(Exception):
    pass


class ArchiveStream:
    """The bytes of an archive, until the client has gone. Frees what it holds when it is closed, begun or not."""

    def __init__(self, archive: Archive, *, holds: ExitStack, gone: threading.Event) -> None:
        self._holds = holds
        self._chunks = self._read(archive, gone, until=time.monotonic() + LONGEST_SECONDS)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._chunks.close()
        self._holds.close()

    @staticmethod
    def _read(archive: Archive, gone: threading.Event, *, until: float) -> Iterator[bytes]:
        for chunk in archive:
            if gone.is_set():
                return
            if time.monotonic() > until:
                raise DownloadTookTooLong
            yield chunk


def respond_with_archive(request: Request, album: Album) -> HttpResponseBase:
    """Answer with the images of an album that the caller may see; nobody but staff is given flagged ones.

    Raises:
        ConcurrencyLimit: this process sends as many archives as it may.
    """
    images = Image.objects.shown_to(request.user)
    with ExitStack() as stack:
        # What is scarce are the threads of this process, so it counts for itself: nothing is left behind when it dies.
        group = f"archive:{socket.gethostname()}:{os.getpid()}"
        at_once = get_config().storage.archives_at_once
        stack.enter_context(hold_slot(group, at_once, LONGEST_SECONDS + 60))
        archive = stack.enter_context(closing(archive_album(album, images)))
        response: HttpResponseBase
        if request.method == "HEAD":
            response = HttpResponse()
        else:
            scope = request.META.get("asgi.scope", {})
            gone = scope.get("imagehub.gone") or threading.Event()
            response = StreamingHttpResponse(ArchiveStream(archive, holds=stack.pop_all(), gone=gone))
    response["Content-Type"] = "application/zip"
    response["Content-Length"] = archive.size_bytes
    response["Content-Disposition"] = content_disposition_header(True, file_name(album.name, ".zip"))  # noqa: FBT003
    response["Cache-Control"] = "private, no-store"
    return response
