from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from imagehub.admin_lists import LongListAdmin
from imagehub.operations import disk_admin  # noqa: F401 - Django looks for admin pages here
from imagehub.operations.models import Purge
from imagehub.operations.purges import told


@admin.register(Purge)
class PurgeAdmin(LongListAdmin):
    """What was deleted of old things, and when. The rows write themselves."""

    list_display = [
        "created_at", "kind", "origin", "requested_by", "older_than_days", "is_dry_run", "state", "outcome",
    ]  # fmt: skip
    list_filter = ["kind", "origin", "state", "is_dry_run"]
    list_select_related = ["requested_by"]
    ordering = ["-created_at", "-id"]

    @admin.display(description="Outcome")
    def outcome(self, purge: Purge) -> str:
        return str(purge.result.get("problem") or told(purge) or "\N{EM DASH}")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
