from django.contrib import admin

from imagehub.admin_lists import ReadOnlyAdmin
from imagehub.jobs.models import WorkerPresence


@admin.register(WorkerPresence)
class WorkerPresenceAdmin(ReadOnlyAdmin):
    """Which clusters were seen, and when. The rows write themselves."""

    list_display = ["cluster", "host", "pid", "started_at", "seen_at"]
    list_filter = ["cluster"]
    ordering = ["-seen_at", "-id"]
