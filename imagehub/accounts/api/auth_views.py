"""Signing in with Google, who is signed in, and signing out."""

from contextlib import suppress
from typing import Any

from django.conf import settings
from django.contrib.auth import logout
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers, status
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from imagehub import rate_limits
from imagehub.accounts import google
from imagehub.api.authentication import SessionAuthentication
from imagehub.api.parsers import JSONParser
from imagehub.api.schema import problem

SENTENCES = {
    google.SUCCESS: "You are signed in.",
    google.ERROR: "Signing in did not work.",
    google.CANCELLED: "Signing in was cancelled.",
}


class AuthView(APIView):
    """Open to everybody. No cache may keep an answer: it is about one session."""

    permission_classes = [AllowAny]

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers["Cache-Control"] = "no-store"
        return response


class PopupView(AuthView):
    """A page in the popup, for browsers only; there is none unless Google sign-in is configured.

    Any other opener policy would cut the popup off from the page that opened it.
    """

    authentication_classes = [SessionAuthentication]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if not google.is_configured():
            raise Http404
        super().initial(request, *args, **kwargs)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers["Cross-Origin-Opener-Policy"] = "unsafe-none"
        return response


class LoginView(PopupView):
    """Begin to sign in with Google. Open it in a popup, or go to it with ``next``."""

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "next", OpenApiTypes.STR, description="The path to end on, where it is not a popup."
            )
        ],
        responses={
            302: OpenApiResponse(description="To Google."),
            **problem(404),  # it is not configured
            **problem(429),
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        usage = rate_limits.charge("sign_in", rate_limits.rate_limit_key(request))
        response = google.start(_plain(request), request.GET.get("next", ""))
        for name, value in (usage.headers if usage else {}).items():
            response.headers[name] = value
        return response


@extend_schema(exclude=True)
class GoogleCallbackView(PopupView):
    """Where Google sends the browser."""

    def get(self, request: Request) -> HttpResponseBase:
        return google.finish(_plain(request))


@extend_schema(exclude=True)
class DoneView(PopupView):
    """Where a sign-in ends. A popup tells its opener and closes; it carries nothing that is worth stealing.

    What it tells is only a hint: the opener asks ``/api/auth/me``.
    """

    def get(self, request: Request) -> HttpResponseBase:
        outcome = request.GET.get("status")
        if outcome not in google.STATUSES or (
            outcome == google.SUCCESS and not request.user.is_authenticated
        ):
            outcome = google.ERROR
        next_path = google.local_path(request.GET.get("next", ""))
        if outcome == google.SUCCESS and next_path:
            return HttpResponseRedirect(next_path)
        return render(
            _plain(request),
            "accounts/done.html",
            {
                "sentence": SENTENCES[outcome],
                "next_path": next_path,
                "message": {
                    "status": outcome,
                    "origins": [_own_origin(request), *settings.FRONTEND_ORIGINS],
                },
            },
        )


class MeView(AuthView):
    """Who is calling. Never 401: a visitor is an answer as well."""

    def perform_authentication(self, request: Request) -> None:
        with suppress(AuthenticationFailed):  # from then on it is a visitor
            super().perform_authentication(request)

    @extend_schema(
        responses=inline_serializer(
            "Me",
            {
                "authenticated": serializers.BooleanField(),
                "role": serializers.ChoiceField(["anonymous", "user", "staff", "superuser"]),
                "email": serializers.CharField(allow_null=True),
                "name": serializers.CharField(allow_null=True),
                "is_staff": serializers.BooleanField(),
                "is_superuser": serializers.BooleanField(),
                "csrf_token": serializers.CharField(help_text="For `X-CSRFToken`, which sessions need."),
                "login_url": serializers.CharField(
                    allow_null=True, help_text="Where signing in begins; null if Google is not configured."
                ),
            },
        )
    )
    def get(self, request: Request) -> Response:
        user = request.user
        return Response(
            {
                "authenticated": user.is_authenticated,
                "role": _role(user),
                "email": (user.email or None) if user.is_authenticated else None,
                "name": (user.get_full_name() or user.get_username()) if user.is_authenticated else None,
                "is_staff": user.is_staff,
                "is_superuser": user.is_superuser,
                "csrf_token": get_token(_plain(request)),
                "login_url": reverse("auth-login") if google.is_configured() else None,
            }
        )


class LogoutView(AuthView):
    """End the session. Without one there is nothing to do."""

    authentication_classes = [SessionAuthentication]
    parser_classes = [JSONParser, FormParser, MultiPartParser]  # a button in a form signs out, too

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        logout(_plain(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _plain(request: Request) -> HttpRequest:
    return request._request


def _own_origin(request: Request) -> str:
    return f"{request.scheme}://{request.get_host()}"


def _role(user: Any) -> str:
    if not user.is_authenticated:
        return "anonymous"
    if user.is_superuser:
        return "superuser"
    return "staff" if user.is_staff else "user"
