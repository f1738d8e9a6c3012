"""The door of the admin site, which closes for a while after too many wrong passwords."""

import unicodedata
from typing import Any

from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from imagehub.rate_limits import RateLimited, address_key, charge, refund


class PasswordForm(AdminAuthenticationForm):
    """Counts failures: few under one name from one address, more from one address, most under one name.

    So whoever tries passwords is stopped, and from one address nobody can lock the owner of a name out elsewhere. Each attempt is counted before the password is looked at and given back if it was right: many at once get no
    more attempts than one after another.
    """

    refused: RateLimited | None = None

    def clean(self) -> dict[str, Any]:
        charged = []
        try:
            for group, key in self._counters():
                charged.append(charge(group, key))
        except RateLimited as refused:
            self._give_back(charged)
            self.refused = refused
            raise ValidationError(
                f"Too many failed attempts. Try again in {refused.retry_after} seconds.", code="locked_out"
            ) from refused
        cleaned = super().clean()
        self._give_back(charged)
        return cleaned

    def _counters(self) -> list[tuple[str, str]]:
        # As databases and people may compare names: nobody gets more attempts by writing one differently.
        name = unicodedata.normalize("NFKC", self.cleaned_data.get("username", "")).casefold()
        address = address_key(self.request)  # type: ignore[arg-type]
        return [
            ("sign_in", f"password:{address}:{name}"),
            ("sign_in_wide", f"password:{address}"),
            ("sign_in_name", f"password:name:{name}"),
        ]

    @staticmethod
    def _give_back(charged: list[Any]) -> None:
        for usage in charged:
            refund(usage)


class AdminSite(admin.AdminSite):
    login_form = PasswordForm

    @method_decorator(never_cache)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the form, with 429 if nobody may try for a while."""
        response = super().login(request, extra_context)
        form = (getattr(response, "context_data", None) or {}).get("form")
        refused = getattr(form, "refused", None)
        if refused is not None:
            response.status_code = 429
            response.headers["Retry-After"] = str(refused.retry_after)
            for name, value in refused.usage.headers.items():
                response.headers[name] = value
        return response
