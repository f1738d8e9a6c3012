from django.contrib.auth.models import User
from django.http import QueryDict
from django.utils import timezone
from rest_framework import authentication
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from imagehub.accounts.models import ApiToken
from imagehub.accounts.services import find_token, note_use

SCHEME = b"bearer"


class InvalidToken(AuthenticationFailed):
    """One answer for all tokens that do not open the door, so that nobody learns why."""

    default_code = "invalid_token"
    default_detail = "The API token is unknown, expired or revoked."


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Bearer <token>`` (RFC 6750).

    A token that is no good ends the request: a session beside it does not help.
    """

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        if not _names_bearer(request):
            return None
        _, _, secret = get_authorization_header(request).partition(b" ")
        now = timezone.now()
        token = find_token(secret.decode("latin-1").strip(" "), now)
        if token is None:
            raise InvalidToken
        note_use(token, now)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of a 401, which follows a Bearer header only when its token was refused."""
        return 'Bearer realm="ImageHub"' + (', error="invalid_token"' if _names_bearer(request) else "")


class CsrfFailed(PermissionDenied):
    default_code = "csrf_failed"
    default_detail = "The CSRF token is missing or wrong."


class SessionAuthentication(authentication.SessionAuthentication):
    """The session of a browser. Whoever has no token against forgery is told so, and not that a role is missing.

    The token stands in a header. To look for it in a form as well would read the whole body before anything else is
    known of the request, an upload of 200 MiB too.
    """

    def enforce_csrf(self, request: Request) -> None:
        """Refuse a request that another site may have forged.

        Raises:
            CsrfFailed: its token is missing or wrong.
        """
        django_request = request._request
        is_unread = "_post" not in vars(django_request)
        if is_unread:
            django_request._post = QueryDict()  # type: ignore[attr-defined]
        try:
            super().enforce_csrf(django_request)  # type: ignore[arg-type]
        except PermissionDenied as error:
            raise CsrfFailed from error
        finally:
            if is_unread:
                del django_request._post  # type: ignore[attr-defined]


def _names_bearer(request: Request) -> bool:
    return get_authorization_header(request).split(b" ", 1)[0].lower() == SCHEME
