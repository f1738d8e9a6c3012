"""What services refuse becomes a message, and nothing is changed."""

from contextlib import nullcontext
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from imagehub.errors import ImageHubError


class RefusalsMixin:
    """For a ``ModelAdmin`` whose forms and actions call services."""

    slow_actions: frozenset[str] = frozenset()
    """Those that read files: no transaction is held for them, so what is done before one is refused stays done."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show or save a form; who is refused while it is saved finds the page as it was."""
        try:
            return super().changeform_view(request, *args, **kwargs)  # type: ignore[misc]
        except ImageHubError as error:
            self.message_user(request, f"Nothing was saved. {error}", messages.ERROR)  # type: ignore[attr-defined]
            return HttpResponseRedirect(request.get_full_path())

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Ask, or delete a row; who is refused finds the question as it was."""
        try:
            return super().delete_view(request, *args, **kwargs)  # type: ignore[misc]
        except ImageHubError as error:
            self.message_user(request, f"Nothing was deleted. {error}", messages.ERROR)  # type: ignore[attr-defined]
            return HttpResponseRedirect(request.get_full_path())

    def response_action(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Do what was asked for with the selected rows, all or none."""
        is_slow = self.slow_actions.intersection(request.POST.getlist("action"))
        try:
            with nullcontext() if is_slow else transaction.atomic():
                return super().response_action(request, queryset)  # type: ignore[misc]
        except (ImageHubError, ValidationError) as error:
            text = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            self.message_user(request, f"Nothing was changed. {text}", messages.ERROR)  # type: ignore[attr-defined]
            return HttpResponseRedirect(request.get_full_path())
