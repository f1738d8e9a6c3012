"""Who may call a view, and how far an API token reaches.

Whoever is not signed in gets a 401 from DRF, everybody else a 403. Which rows somebody sees is the queryset's decision.
"""

from typing import Any

from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from imagehub.accounts.models import ApiToken, Scope


class InsufficientScope(PermissionDenied):
    """The user may do this, but not with this token (RFC 6750, section 3.1)."""

    default_code = "insufficient_scope"

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"This needs an API token with the scope “{scope.value}”.")
        # DRF answers with it as the challenge.
        self.auth_header = f'Bearer realm="ImageHub", error="insufficient_scope", scope="{scope.value}"'


class ScopedPermission(BasePermission):
    """The base of all permissions here: a role, and within it what the scopes of a token allow.

    To read, any scope does. For everything else the view names one in ``required_scope``; a view that names none
    is for tokens with the scope ``admin``.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        if not self.has_role(request):
            return False
        token = getattr(request, "auth", None)
        if isinstance(token, ApiToken):
            is_safe = request.method in SAFE_METHODS
            scope = Scope.READ if is_safe else getattr(view, "required_scope", Scope.ADMIN)
            if not token.grants(scope):
                raise InsufficientScope(scope)
        return True

    def has_role(self, request: Request) -> bool:
        """Tell whether the caller is one of those whom the view is for."""
        raise NotImplementedError


class SignedIn(ScopedPermission):
    """Every active user."""

    message = "Only users may do this."

    def has_role(self, request: Request) -> bool:
        return bool(request.user and request.user.is_authenticated and request.user.is_active)


class StaffOnly(ScopedPermission):
    """Only active staff."""

    message = "Only staff may do this."

    def has_role(self, request: Request) -> bool:
        return bool(request.user and request.user.is_active and request.user.is_staff)


class StaffOrReadOnly(StaffOnly):
    """Everybody may look, only staff may change."""

    def has_role(self, request: Request) -> bool:
        return request.method in SAFE_METHODS or super().has_role(request)
