from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from imagehub.jobs.models import WorkerPresence


@admin.register(WorkerPresence)
class WorkerPresenceAdmin(admin.ModelAdmin):
    """Which clusters were seen, and when. The rows write themselves."""

    list_display = ["cluster", "host", "pid", "started_at", "seen_at"]
    list_filter = ["cluster"]
    ordering = ["-seen_at", "-id"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
