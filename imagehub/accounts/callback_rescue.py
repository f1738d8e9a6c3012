"""Callbacks of Google that arrive at a mangled path.

Some proxies and bookmarks encode the path once too often, so that a browser comes back to ``/api/auth/google/%2F`` or
``/auth/google/callback``. What it carries, the code and the state, is still good.
"""

import time

from allauth.socialaccount.internal.statekit import STATE_TTL, get_states
from allauth.socialaccount.providers.google.provider import GoogleProvider
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin

from imagehub.accounts.google import is_configured
from imagehub.api import problems
from imagehub.errors import ImageHubError

CALLBACK = "/api/auth/google/callback"
PLACE = ["auth", "google"]


class BadCallback(ImageHubError):
    code = "bad_callback"
    title = "This is no answer of Google's"


class CallbackRescueMiddleware(MiddlewareMixin):
    """Send a stray callback to the one path there is, or answer 400 if nothing in it is good.

    Nothing of the request's path gets into the answer, and the path it leads to is never rescued again. The query string
    holds the code: it is passed on, and never logged.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Answer a stray callback; let everything else pass."""
        return _answer(request) if _is_stray(request) else None


def _is_stray(request: HttpRequest) -> bool:
    if request.method != "GET" or request.path_info == CALLBACK or not is_configured():
        return False
    path = request.path_info.replace("%2F", "/").replace("%2f", "/")
    parts = [part for part in path.split("/") if part]
    return parts[:2] == PLACE or parts[:3] == ["api", *PLACE]


def _answer(request: HttpRequest) -> HttpResponse:
    if not request.GET.get("code") or not _is_known(request, request.GET.get("state", "")):
        response = problems.of_ours(BadCallback("Nothing here can finish a sign-in. Begin it anew."), request)
    else:
        response = HttpResponseRedirect(
            f"{reverse('google_callback')}?{request.META.get('QUERY_STRING', '')}"
        )
    response.headers["Cross-Origin-Opener-Policy"] = "unsafe-none"  # it still is the popup
    response.headers["Cache-Control"] = "no-store"
    return response


def _is_known(request: HttpRequest, state: str) -> bool:
    """Tell whether this session waits for a state. The state stays there: it is good for one callback only."""
    stashed = get_states(request).get(state)
    if stashed is None or len(stashed) != 3:
        return False
    _, stashed_at, provider = stashed
    return provider == GoogleProvider.id and time.time() - stashed_at <= STATE_TTL
