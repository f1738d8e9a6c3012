"""Rate limits of views. The counting itself is in ``imagehub.rate_limits``."""

from typing import Any

from django.http import HttpResponseBase
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.status import is_success
from rest_framework.throttling import BaseThrottle

from imagehub import rate_limits
from imagehub.rate_limits import Usage, rate_limit_key


class RateLimitThrottle(BaseThrottle):
    """Charges the views that want it before they read a body. The others charge when all else is settled."""

    def allow_request(self, request: Request, view: "RateLimitedMixin") -> bool:  # type: ignore[override]
        """Let the request pass.

        Raises:
            RateLimited: the limit is reached.
        """
        if view.charges_before_body and request.method not in SAFE_METHODS:
            view.charge()
        return True


class RateLimitedMixin:
    """A view whose accepted calls are counted, and refused with 429 when there are too many.

    A view calls :meth:`charge` as the last thing, in one transaction with the service that wrote the row: a refusal takes
    the row back. Whatever was charged for a call that did not succeed is given back, however it failed.
    """

    rate_limit = ""
    """The group: a field of ``rate_limits`` in the configuration. An ``@action`` may name its own."""

    charges_before_body = False
    """Whether each call costs 1 as soon as it is known who calls, because reading the body is the expensive part."""

    throttle_classes = [RateLimitThrottle]
    request: Request
    _charged: Usage | None = None

    def charge(self, cost: int = 1) -> None:
        """Count this call.

        Raises:
            RateLimited: it does not fit.
        """
        self._charged = rate_limits.charge(self.rate_limit, rate_limit_key(self.request), cost)

    def handle_exception(self, exc: Exception) -> HttpResponseBase:
        self._refund()
        return super().handle_exception(exc)  # type: ignore[misc]

    def finalize_response(
        self, request: Request, response: HttpResponseBase, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        response = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]
        if not is_success(response.status_code):
            self._refund()
        elif self._charged is not None:
            for name, value in self._charged.headers.items():
                response.headers[name] = value
        return response

    def _refund(self) -> None:
        rate_limits.refund(self._charged)
        self._charged = None
