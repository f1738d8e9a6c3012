"""An id for each request, by which its log lines are found, and the one line that tells how it went."""

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.utils.functional import LazyObject, empty

from imagehub import request_counts
from imagehub.context import at_work, hide, request_id
from imagehub.redaction import sensitive_values
from imagehub.security_headers import PLAIN_HTTP_PATHS

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

logger = structlog.stdlib.get_logger(__name__)

HEADER = "X-Request-ID"

Finish = Callable[["HttpResponseBase"], "HttpResponseBase"]
"""Adds to a response what can be told only when it is there."""

_ACCEPTED = re.compile(r"[A-Za-z0-9_-]{8,64}")

_OAUTH_PARAMETERS = ("code", "state")

_PROBES = [re.compile(path) for path in (*PLAIN_HTTP_PATHS, r"^metrics$")]
"""What programs ask for all day."""


class SurroundingMiddleware:
    """Does something around the answering of a request, on Django's synchronous side and on the other.

    What a context variable says has to hold while the request is answered, and ``MiddlewareMixin`` of Django's has no
    place for that: use that one where looking at the request or the response is enough.
    """

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
        with self.around(request) as finish:
            return finish(self.get_response(request))

    async def _answer_async(self, request: "HttpRequest") -> "HttpResponseBase":
        with self.around(request) as finish:
            return finish(await self.get_response(request))

    def around(self, request: "HttpRequest") -> "AbstractContextManager[Finish]":
        """Return what surrounds the answering of a request; it yields a function that finishes the response."""
        raise NotImplementedError


class RequestIdMiddleware(SurroundingMiddleware):
    """Give each request an id: the caller's own if it looks like one, and answer with it.

    Logs ``request.completed`` when the answer is there, or when the last of a stream was sent.
    """

    @contextmanager
    def around(self, request: "HttpRequest") -> "Iterator[Finish]":
        started = time.perf_counter()
        with _answering(request):
            hide(*_credentials(request))
            yield lambda response: _finished(request, response, started)


def _answering(request: "HttpRequest") -> AbstractContextManager[None]:
    return at_work(
        request=_id_of(request), facts=partial(_facts, request), sensitive=partial(_form_values, request)
    )


def _id_of(request: "HttpRequest") -> str:
    sent = request.headers.get(HEADER, "")
    return sent if _ACCEPTED.fullmatch(sent) else uuid.uuid4().hex


def _facts(request: "HttpRequest") -> dict[str, str]:
    """Return what is known by now. To ask who the user is could ask the database, in the middle of its failure."""
    user = getattr(request, "user", None)
    is_known = not (isinstance(user, LazyObject) and user._wrapped is empty)
    match = request.resolver_match
    return {
        "user": getattr(user, "email", "") if is_known else "",
        "operation": match.view_name if match else "",
    }


def _credentials(request: "HttpRequest") -> Iterator[str]:
    """Yield what the head of a request says that nobody else may know."""
    meta = request.META
    if authorization := meta.get("HTTP_AUTHORIZATION"):
        yield authorization.partition(" ")[2]
    if key := meta.get("HTTP_IDEMPOTENCY_KEY"):
        yield key
    if meta.get("HTTP_COOKIE"):
        for name in (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME):
            if value := request.COOKIES.get(name):
                yield value
    if meta.get("QUERY_STRING"):
        try:
            query = dict(request.GET.lists())
        except SuspiciousOperation:  # too many fields: whoever reads them refuses the request
            return
        yield from sensitive_values(query)
        for name in _OAUTH_PARAMETERS:
            yield from query.get(name, [])


def _form_values(request: "HttpRequest") -> Iterator[str]:
    """Yield the secrets and prompts of a form, once a view has read it: to read it first would bind the view."""
    if form := request.__dict__.get("_post"):
        yield from sensitive_values(dict(form.lists()))


def _finished(request: "HttpRequest", response: "HttpResponseBase", started: float) -> "HttpResponseBase":
    response.headers[HEADER] = request_id.get()
    request_counts.count(response.status_code, time.perf_counter() - started)
    log = partial(_log, request, response.status_code, started)
    if response.streaming:
        # Closed when the last part is sent or the client has gone, outside of this context.
        response._resource_closers.append(partial(copy_context().run, log))  # type: ignore[attr-defined]
    else:
        log()
    return response


def _log(request: "HttpRequest", status: int, started: float) -> None:
    logger.log(
        _level(request.path, status),
        "request.completed",
        method=request.method,
        path=request.path,  # without the query
        status=status,
        duration_ms=round((time.perf_counter() - started) * 1000, 1),
    )


def _level(path: str, status: int) -> int:
    if status >= 500:
        return logging.ERROR
    is_routine = path.startswith(settings.STATIC_URL) or any(
        probe.match(path.removeprefix("/")) for probe in _PROBES
    )
    return logging.DEBUG if is_routine else logging.INFO
