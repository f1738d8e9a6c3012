"""An id for each request, by which its log lines are found."""

import re
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from imagehub.context import request_id

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

HEADER = "X-Request-ID"

_ACCEPTED = re.compile(r"[A-Za-z0-9_-]{8,64}")


class RequestIdMiddleware:
    """Give each request an id: the caller's own if it looks like one, and answer with it."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: "Callable[[HttpRequest], Any]") -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: "HttpRequest") -> Any:
        """Answer a request, or, around an asynchronous view, return the coroutine that does."""
        if self._is_async:
            return self._answer_async(request)
        context = request_id.set(_id_of(request))
        try:
            return _marked(self.get_response(request))
        finally:
            request_id.reset(context)

    async def _answer_async(self, request: "HttpRequest") -> "HttpResponseBase":
        context = request_id.set(_id_of(request))
        try:
            return _marked(await self.get_response(request))
        finally:
            request_id.reset(context)


def _id_of(request: "HttpRequest") -> str:
    sent = request.headers.get(HEADER, "")
    return sent if _ACCEPTED.fullmatch(sent) else uuid.uuid4().hex


def _marked(response: "HttpResponseBase") -> "HttpResponseBase":
    response.headers[HEADER] = request_id.get()
    return response
