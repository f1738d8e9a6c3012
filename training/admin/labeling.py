"""Labeling jobs in the admin: watched and cancelled. They are asked for over the API."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from imagehub.errors import ImageHubError
from training.models import LabelingItem, LabelingJob
from training.services import labeling

MOST_SHOWN = 100
"""Images that failed, on the page of a job."""


@admin.register(LabelingJob)
class LabelingJobAdmin(admin.ModelAdmin):
    """See what models were asked about, and what became of it."""

    list_display = ["task", "model", "status", "progress_bar", "total", "owner", "created_at", "finished_at"]
    list_filter = ["status", "task"]
    list_select_related = ["owner"]
    list_per_page = 50
    show_full_result_count = False
    ordering = ["-created_at", "-id"]
    actions = ["cancel"]

    @admin.display(description="Progress", ordering="progress")
    def progress_bar(self, job: LabelingJob) -> str:
        return format_html('<progress value="{0}" max="100">{0}%</progress>', job.progress)

    @admin.display(description="Images")
    def outcome(self, job: LabelingJob) -> str:
        counts = labeling.counts_of([job])[job.pk]
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count)

    @admin.display(description="What failed")
    def failures(self, job: LabelingJob) -> str:
        failed = LabelingItem.objects.filter(job=job, state=LabelingItem.State.FAILED)
        found = failed.values_list("image_id", "detail").order_by("position")[:MOST_SHOWN]
        return "\n".join(f"{image}: {detail}" for image, detail in found) or "\N{EM DASH}"

    @admin.action(description="Cancel", permissions=["change"])
    def cancel(self, request: HttpRequest, jobs: QuerySet[LabelingJob]) -> None:
        for job in jobs:
            try:
                job = labeling.cancel_labeling(job)
            except ImageHubError as error:
                self.message_user(request, f"{job}: {error}", messages.WARNING)
            else:
                what = "is cancelled" if job.is_finished else "is stopping"
                self.message_user(request, f"{job} {what}.", messages.SUCCESS)

    def get_fields(self, request: HttpRequest, obj: LabelingJob | None = None) -> list[str]:
        return [
            "task", "model", "overwrite", "status", "progress_bar", "outcome", "failures", "message", "owner",
            "priority", "attempt", "max_attempts", "error_code", "error_detail", "error_trace", "created_at",
            "queued_at", "started_at", "finished_at", "worker", "request_id",
        ]  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: LabelingJob | None = None) -> list[str]:
        return self.get_fields(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
