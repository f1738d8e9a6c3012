from django.http import HttpRequest
from django.urls import reverse

from imagehub.accounts.google import is_configured


def google_sign_in(request: HttpRequest) -> dict[str, str]:
    """Tell templates where signing in with Google begins: nowhere, if it is not configured."""
    return {"google_login_url": reverse("auth-login") if is_configured() else ""}
