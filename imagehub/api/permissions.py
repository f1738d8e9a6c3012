"""Who may call a view. Whoever is not signed in gets a 401 from DRF, everybody else a 403."""

from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request


class StaffOnly(BasePermission):
    """Only active staff."""

    message = "Only staff may do this."

    def has_permission(self, request: Request, view: Any) -> bool:
        return bool(request.user and request.user.is_active and request.user.is_staff)


class StaffOrReadOnly(StaffOnly):
    """Everybody may look, only staff may change. Which rows somebody sees is the queryset's decision."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return request.method in SAFE_METHODS or super().has_permission(request, view)
