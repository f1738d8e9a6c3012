from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from imagehub.accounts.audit import answering

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


class AuditMiddleware:
    """Lets the audit trail know which request is being answered. Stands behind the one that knows the session."""

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
        with answering(request):
            return self.get_response(request)

    async def _answer_async(self, request: "HttpRequest") -> "HttpResponseBase":
        with answering(request):
            return await self.get_response(request)
