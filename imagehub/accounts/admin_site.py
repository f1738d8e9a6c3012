"""The door of the admin site: it closes for a while after too many wrong passwords, and nobody asks behind it for what no row can hold."""

import unicodedata
from functools import update_wrapper
from typing import Any

from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from imagehub.database import UNSTORABLE
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

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:  # noqa: FBT001, FBT002 - Django's
        """Return the view, open to staff alone. Who asks by a text that cannot be stored is not taken to the database.

        PostgreSQL would fail over it, and the page with it. Whatever the page filters, finds or orders by stands in its
        address: without that, a list shows all it has, and says that it did not understand.
        """

        def storable(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if any(UNSTORABLE.search(str(part)) for part in (*args, *kwargs.values())):
                raise Http404
            if any(UNSTORABLE.search(text) for item in request.GET.lists() for text in (item[0], *item[1])):
                return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")
            return view(request, *args, **kwargs)

        return super().admin_view(update_wrapper(storable, view), cacheable)

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
