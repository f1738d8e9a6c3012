"""Sign-in with Google: whom it lets in, and where it leads. The protocol is django-allauth's.

Only these two views of allauth's are ever reached: the redirect to Google and its callback. None of its URLs is included.
"""

import secrets
from typing import Any
from urllib.parse import unquote

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.providers.base.constants import AuthError, AuthProcess
from allauth.socialaccount.providers.google.provider import GoogleProvider
from allauth.socialaccount.providers.google.views import oauth2_callback
from django.conf import settings
from django.contrib.auth.signals import user_login_failed
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode

from imagehub.accounts.services import find_or_create_user
from imagehub.accounts.staff_list import apply_to
from imagehub.errors import ImageHubError

SUCCESS, ERROR, CANCELLED = STATUSES = ("success", "error", "cancelled")
MAX_NEXT = 2000


def is_configured() -> bool:
    """Tell whether there is a client of Google's to sign in with. Otherwise the feature does not exist."""
    return bool(settings.SOCIALACCOUNT_PROVIDERS["google"]["APPS"])


def start(request: HttpRequest, next_url: str = "") -> HttpResponse:
    """Send the browser to Google; ``next_url`` is the page of ours to show in the end, if it is no popup."""
    provider = DefaultSocialAccountAdapter(request).get_provider(request, GoogleProvider.id)
    nonce = secrets.token_urlsafe()
    return provider.redirect(
        request,
        AuthProcess.LOGIN,
        next_url=done_url(SUCCESS, next_url),
        data={"nonce": nonce, "next": local_path(next_url)},
        auth_params=provider.get_auth_params() | {"nonce": nonce},
    )


def finish(request: HttpRequest) -> HttpResponse:
    """Answer what Google sent the browser back with: signed in or not, it ends on the done page."""
    try:
        return oauth2_callback(request)
    except (ImageHubError, IntegrityError, ValueError, KeyError, ImproperlyConfigured):
        # What a provider must not answer: no JSON, no subject, one too long. Nobody was signed in.
        return HttpResponseRedirect(done_url(ERROR))


def done_url(status: str, next_url: str = "") -> str:
    """Return where a sign-in ends."""
    wanted = local_path(next_url)
    return f"{reverse('auth-done')}?{urlencode({'status': status} | ({'next': wanted} if wanted else {}))}"


def local_path(url: str) -> str:
    """Return a path on this site as it is, ``/`` for any other address, and nothing for nothing."""
    if not url:
        return ""
    decoded = unquote(unquote(url)).replace("\\", "/")
    is_local = (
        len(url) <= MAX_NEXT
        and url.startswith("/")
        and decoded.isprintable()
        and all(url_has_allowed_host_and_scheme(form, allowed_hosts=None) for form in (url, decoded))
    )
    return url if is_local else "/"


class AccountAdapter(DefaultAccountAdapter):
    """Users come from Google or from the admin; there is no other way to sign up."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def add_message(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing: the message would wait for the next page of the admin."""


class GoogleAdapter(DefaultSocialAccountAdapter):
    """Signs in whoever has an address that Google has verified."""

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Find the user, or make one.

        A user who is there already is linked by the address: Google says it is verified, and only staff can
        have entered it here.

        Raises:
            ImmediateHttpResponse: nobody is signed in.
        """
        email = next(
            (address.email for address in sociallogin.email_addresses if address.verified), ""
        ).lower()
        # As Google sent it: letters that only look like others become them when their case changes (U+212A is no K).
        if not str(sociallogin.account.extra_data.get("email", "")).isascii():
            raise _refused(request, sociallogin)
        data = sociallogin.state.get("data") or {}
        if not email or not secrets.compare_digest(
            str(data.get("nonce")), str(sociallogin.account.extra_data.get("nonce"))
        ):
            raise _refused(request, sociallogin)
        try:
            with transaction.atomic():
                if not sociallogin.is_existing:
                    user, is_new = find_or_create_user(email)
                    if is_new:
                        user.first_name = sociallogin.user.first_name[:150]
                        user.last_name = sociallogin.user.last_name[:150]
                        user.save(update_fields=["first_name", "last_name"])
                    sociallogin.connect(request, user)
                if not sociallogin.user.is_active:
                    raise _refused(request, sociallogin)
                apply_to(sociallogin.user, email)
        except (ImageHubError, IntegrityError) as error:  # deactivated, ambiguous, or twice at once
            raise _refused(request, sociallogin) from error

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Exception | None = None,
        extra_context: dict[str, Any] | None = None,
    ) -> None:
        """Lead every failure to the done page."""
        data = ((extra_context or {}).get("state") or {}).get("data") or {}
        status = CANCELLED if error == AuthError.CANCELLED else ERROR
        raise ImmediateHttpResponse(HttpResponseRedirect(done_url(status, data.get("next", ""))))


def _refused(request: HttpRequest, sociallogin: SocialLogin) -> ImmediateHttpResponse:
    email = next((address.email for address in sociallogin.email_addresses), "").lower()
    user_login_failed.send(sender=__name__, credentials={"username": email}, request=request)
    data = sociallogin.state.get("data") or {}
    return ImmediateHttpResponse(HttpResponseRedirect(done_url(ERROR, data.get("next", ""))))
