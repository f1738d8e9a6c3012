"""Streams of events about jobs, in the format of ``EventSource`` (server-sent events).

A view answers with what there is to say now, as any view does: on a lasting thread, with all of sign-in, middleware and errors.
What happens later the event loop sends behind it (``imagehub.asgi``), when the thread is long doing something else. Under a server
that has no event loop the answer ends there, and the browser's ``EventSource`` asks again by itself.
"""

import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, cast

import orjson
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.generics import get_object_or_404
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from imagehub.api.permissions import StaffOnly
from imagehub.api.renderers import JSONRenderer
from imagehub.api.schema import problem
from imagehub.config import get_config
from imagehub.errors import Invalid
from imagehub.jobs.listening import Event, News, Stage, events_between, hub, look, seats
from imagehub.jobs.models import Job, JobStatus
from imagehub.jobs.registry import JobKind, get_kind

CONTENT_TYPE = "text/event-stream"
SCOPE_KEY = "imagehub.stream"
"""Where the server's scope has a list for a stream that is to follow the answer."""

RETRY_MILLISECONDS = 2000
"""How long a browser waits before it connects again."""

EVENTS = (
    "`state` when the job enters a status, `progress` while it runs or waits, and `preview` with a small picture, if its kind makes"
    " some. The data of `state` and `progress` are fields of the job; of a status that it has left again meanwhile, `status` and"
    " `attempt` only."
)

_STATUSES = tuple(JobStatus.values)
_STAGES = 1000
_LAST_ID = re.compile("[0-9]{1,16}")


class JobEventSerializer(serializers.Serializer):
    """One event of a stream, as a browser's ``EventSource`` hands it out."""

    id = serializers.CharField(help_text="Greater than those of all events before it.")
    event = serializers.ChoiceField(["state", "progress", "preview"])
    data = serializers.CharField(help_text="A JSON object.")


class EventStreamRenderer(BaseRenderer):
    """Lets a client ask for events; what is rendered is always bytes already."""

    media_type = CONTENT_TYPE
    format = "events"

    def render(self, data: Any, *_: Any, **__: Any) -> Any:
        return data


class Ids:
    """Numbers of events: each is greater than those before it, in earlier streams too, and tells how far the job had come.

    They are milliseconds, and in the last three digits the stage. So whichever process a client comes back to knows what it
    has not been told.
    """

    def __init__(self, last: int = 0) -> None:
        self._moment = last // _STAGES

    def next(self, stage: Stage) -> int:
        self._moment = max(int(time.time() * 1000), self._moment + 1)
        attempt = min(stage.attempt, _STAGES // len(_STATUSES) - 1)
        return self._moment * _STAGES + attempt * len(_STATUSES) + _STATUSES.index(stage.status)

    @staticmethod
    def stage_of(number: int) -> Stage:
        """Return how far the job had come when this number was given."""
        attempt, status = divmod(number % _STAGES, len(_STATUSES))
        return Stage(_STATUSES[status], attempt)


class EventStream:
    """What follows the answer: all that still happens to a job, until it has ended or nobody may listen any more."""

    def __init__(
        self, kind: JobKind, job: Job, told: News, *, ids: Ids, user: int, may_listen: Callable[[], bool]
    ) -> None:
        self._kind, self._job, self._told, self._ids = kind, job.pk, told, ids
        self._user, self._may_listen = user, may_listen

    async def __aiter__(self) -> AsyncIterator[bytes]:
        events = hub().listen(self._kind, self._job, self._told, may_listen=self._may_listen)
        async for event in events:
            yield _encode([event], self._ids) if event else b": still here\n\n"

    def close(self) -> None:
        """Let the user open another one. The server calls it however the stream ended."""
        seats.leave(self._user)


class JobEventsView(APIView):
    """Follow one job: server-sent events, until it has ended."""

    kind: str
    """The name of the kind of job."""
    permission_classes = [StaffOnly]
    renderer_classes = [EventStreamRenderer, JSONRenderer]

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "Last-Event-ID",
                str,
                OpenApiParameter.HEADER,
                description="The id of the last event that was received: what came after it is told.",
            )
        ],
        responses={
            (200, CONTENT_TYPE): OpenApiResponse(JobEventSerializer, description=EVENTS),
            204: OpenApiResponse(description="It has ended, and the caller knows."),
            **problem(429),
        },
    )
    def get(self, request: Request, pk: uuid.UUID | str) -> HttpResponse:
        kind = get_kind(self.kind)
        return stream_events(request, self, kind, get_object_or_404(kind.model, pk=pk))


def stream_events(request: Request, view: APIView, kind: JobKind, job: Job) -> HttpResponse:
    """Answer with the events of a job that the caller has not been told, and have the later ones follow.

    Raises:
        ConcurrencyLimit: the user listens to as many as one may.
        Invalid: ``Last-Event-ID`` is none of ours.
    """
    last = _last_id(request)
    before = Ids.stage_of(last) if last else None
    told = look(kind, [job.pk])[job.pk]
    if told.has_ended and told.stage == before:  # what a browser takes as "do not come back"
        return HttpResponse(status=204)
    ids = Ids(last)
    opening = f"retry: {RETRY_MILLISECONDS}\n\n".encode() + _encode(events_between(before, told), ids)
    response = HttpResponse(opening, content_type=CONTENT_TYPE)
    response["Cache-Control"] = "private, no-store"
    response["X-Accel-Buffering"] = "no"  # nginx would collect it
    follow_up = request.META.get("asgi.scope", {}).get(SCOPE_KEY)
    if follow_up is not None and request.method == "GET" and not told.has_ended:
        user = cast(User, request.user).pk
        seats.take(user, get_config().events.streams_per_user)
        may_listen = _asks_again(request, view)
        follow_up.append(EventStream(kind, job, told, ids=ids, user=user, may_listen=may_listen))
    return response


def _encode(events: Iterable[Event], ids: Ids) -> bytes:
    return b"".join(
        f"id: {ids.next(event.stage)}\nevent: {event.name}\ndata: ".encode() + _json(event.data) + b"\n\n"
        for event in events
    )


def _json(data: Mapping[str, Any]) -> bytes:
    return orjson.dumps(data)  # without line feeds, which would end the event


def _last_id(request: Request) -> int:
    sent = request.headers.get("Last-Event-ID", "")
    if sent and not _LAST_ID.fullmatch(sent):
        raise Invalid("This is the id of no event from here.", pointer="/Last-Event-ID")
    number = int(sent or 0)
    return number if number % _STAGES < _STAGES // len(_STATUSES) * len(_STATUSES) else 0


def _asks_again(request: Request, view: APIView) -> Callable[[], bool]:
    """Return a function that tells whether the caller would still be let in: with the same head, and nothing remembered."""
    meta, cookies = request.META, request.COOKIES

    def may_listen() -> bool:
        again = HttpRequest()
        again.method, again.META, again.COOKIES = "GET", meta, cookies
        key = cookies.get(settings.SESSION_COOKIE_NAME)
        again.session = import_module(settings.SESSION_ENGINE).SessionStore(key)
        again.user = get_user(again)
        asked = Request(again, authenticators=view.get_authenticators())
        try:
            return all(permission.has_permission(asked, view) for permission in view.get_permissions())
        except APIException:
            return False

    return may_listen
