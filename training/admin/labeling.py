"""Labeling jobs in the admin: watched and cancelled. They are asked for over the API."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from imagehub.jobs.admin.acts import Act
from imagehub.jobs.admin.jobs import JobAdmin
from imagehub.jobs.models import JobStatus
from imagehub.jobs.run_log import tail_of_worker
from training.models import LabelingItem, LabelingJob
from training.services import labeling

MOST_SHOWN = 100
"""Images that failed, on the page of a job."""


def _cancel(request: HttpRequest, job: LabelingJob) -> LabelingJob:
    return labeling.cancel_labeling(job)


@admin.register(LabelingJob)
class LabelingJobAdmin(JobAdmin):
    """See what models were asked about, and what became of it."""

    list_display = ["task", "model", "state", "progress_bar", "total", "owner", "came", "finished_at"]
    list_filter = ["status", "task", ("owner", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["owner"]
    acts = {
        "cancel": Act(
            "Cancel", _cancel, "“{}” is cancelled, or about to be.", frozenset(JobStatus.ACTIVE), "Cancel selected jobs"
        )
    }  # fmt: skip
    purge_kind = "training"
    shown = ["outcome", "failures"]

    @admin.display(description="Images")
    def outcome(self, job: LabelingJob) -> str:
        counts = labeling.counts_of([job])[job.pk]
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count)

    @admin.display(description="What failed")
    def failures(self, job: LabelingJob) -> str:
        failed = LabelingItem.objects.filter(job=job, state=LabelingItem.State.FAILED)
        found = failed.values_list("image_id", "detail").order_by("position")[:MOST_SHOWN]
        return "\n".join(f"{image}: {detail}" for image, detail in found) or "\N{EM DASH}"

    def tail_of(self, job: LabelingJob, *, lines: int) -> list[str]:
        return tail_of_worker(job, "labeler", lines=lines)

    def fares(self, job: LabelingJob | None) -> list[Any]:
        return ["status", "outcome", "failures", "message"]

    def about(self, job: LabelingJob | None) -> list[tuple[str, dict[str, Any]]]:
        return [("What it is", {"fields": ["task", "model", "overwrite"]})]
