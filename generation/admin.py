"""The queue of generation in the admin: how it stands, what each job asks for, and what can be done about it."""

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.text import Truncator

from albums import links
from albums.models import Image
from generation import services
from generation.admin_messages import charging, counted, tell_retried
from generation.models import GenerationJob
from generation.set_run_admin import SetRunAdmin  # noqa: F401 - Django looks for admin pages here
from imagehub.jobs.admin.acts import Act
from imagehub.jobs.admin.jobs import JobAdmin
from imagehub.jobs.models import JobStatus
from imagehub.jobs.run_log import tail_of_worker

PRIORITY_STEP = 10

MOST_RETRIES = 20
"""Tries of one picture that are listed on the page of any of them."""


def _cancel(request: HttpRequest, job: GenerationJob) -> GenerationJob:
    return services.cancel_generation_job(job)


def _retry(request: HttpRequest, job: GenerationJob) -> GenerationJob:
    """Try one again, and count it as the API does: last, so that nothing is counted that is refused."""
    with transaction.atomic():
        again = services.retry_generation_job(job, owner=cast(User, request.user))
        charging(request)(again.n)
    return again


@admin.register(GenerationJob)
class GenerationJobAdmin(JobAdmin):
    """Watch the queue, and change it. Jobs are made through the API."""

    list_display = ["short_prompt", "state", "progress_bar", "place", "ends_in", "priority", "whose", "came"]
    list_filter = ["status", "base_model", ("owner", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["base_model", "owner"]
    search_fields = ["id", "prompt"]
    search_help_text = "Words of the prompt, or an id."
    date_hierarchy = "created_at"
    actions = ["cancel", "retry", "put_first", "put_back"]
    acts = {
        "cancel": Act("Cancel", _cancel, "“{}” is cancelled, or about to be.", frozenset(JobStatus.ACTIVE)),
        "retry": Act(
            "Try again", _retry, "“{}” is queued.", frozenset({JobStatus.FAILED, JobStatus.CANCELLED})
        ),
    }
    purge_kind = "generation"
    events_route = "job-events"
    shown = ["pictures", "tries", "adapters", "phases"]

    class Media:
        css = {"all": ["generation/admin.css"]}

    # ---- The list ----

    @admin.display(description="Prompt")
    def short_prompt(self, job: GenerationJob) -> str:
        return Truncator(job.prompt).chars(60)

    @admin.display(description="Place", empty_value="")
    def place(self, job: GenerationJob) -> int | None:
        return job.outlook.position or None  # type: ignore[attr-defined]

    @admin.display(description="Whose, and with")
    def whose(self, job: GenerationJob) -> str:
        parts = (job.owner.get_username(), job.base_model.name)
        return format_html_join("", "<div>{}</div>", ((part,) for part in parts))

    # ---- What can be done ----

    @admin.action(description="Cancel selected jobs", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[GenerationJob]) -> None:
        done = services.cancel_generation_jobs(ids=queryset.order_by().values("pk"))
        said = f"{counted(done.cancelled, 'job is', 'jobs are')} cancelled, {done.stopping} stopping."
        self.message_user(request, said, _level(done.cancelled + done.stopping))

    @admin.action(description="Try selected jobs again", permissions=["change"])
    def retry(self, request: HttpRequest, queryset: QuerySet[GenerationJob]) -> None:
        done = services.retry_jobs(queryset, owner=request.user, charge=charging(request))
        tell_retried(self, request, done)

    @admin.action(description="Put selected jobs before others", permissions=["change"])
    def put_first(self, request: HttpRequest, queryset: QuerySet[GenerationJob]) -> None:
        self._move(request, queryset, PRIORITY_STEP, "before")

    @admin.action(description="Put selected jobs behind others", permissions=["change"])
    def put_back(self, request: HttpRequest, queryset: QuerySet[GenerationJob]) -> None:
        self._move(request, queryset, -PRIORITY_STEP, "behind")

    def _move(self, request: HttpRequest, queryset: QuerySet[GenerationJob], step: int, where: str) -> None:
        moved = services.prioritise_selected(queryset, step=step)
        said = f"{counted(moved, 'job was', 'jobs were')} put {where} others, by {PRIORITY_STEP}."
        self.message_user(request, said, _level(moved))

    # ---- The page of one job ----

    @admin.display(description="Pictures")
    def pictures(self, job: GenerationJob) -> str:
        return format_html_join(
            " ",
            '<a href="{}"><img src="{}" alt="" height="96"></a>',
            (
                (links.page_url(image.pk), links.thumbnail_url(image.pk))
                for image in Image.objects.made_by(job.pk).order_by("source_index")
            ),
        )

    @admin.display(description="Tries")
    def tries(self, job: GenerationJob) -> str:
        """List this job, what it repeats, and what repeats it."""
        return format_html_join(
            "",
            '<div>{}<a href="{}">{}</a> {}</div>',
            (
                (
                    "\N{RIGHTWARDS ARROW} " if other.pk == job.pk else "",
                    reverse("admin:generation_generationjob_change", args=[other.pk]),
                    f"{other.created_at:%Y-%m-%d %H:%M:%S}",
                    other.get_status_display().lower(),
                )
                for other in services.tries_of(job, most=MOST_RETRIES)
            ),
        )

    @admin.display(description="Adapters")
    def adapters(self, job: GenerationJob) -> str:
        return format_html_join(
            "", "<div>{} ({})</div>", ((item["name"], item["weight"]) for item in job.loras)
        )

    @admin.display(description="Seconds of each phase")
    def phases(self, job: GenerationJob) -> str:
        return format_html_join(
            ", ",
            "{} {}",
            ((name, value) for name, value in job.timings.items() if not isinstance(value, dict)),
        )

    def tail_of(self, job: GenerationJob, *, lines: int) -> list[str]:
        return tail_of_worker(job, "engine", lines=lines)

    def fares(self, job: GenerationJob | None) -> list[Any]:
        return [
            "pictures", "tries", ("status", "progress", "step", "total_steps"), "message",
            ("priority", "overtaken"), "phases",
        ]  # fmt: skip

    def about(self, job: GenerationJob | None) -> list[tuple[str, dict[str, Any]]]:
        asked = [
            "prompt", "negative_prompt", "name", ("base_model", "scheduler"), ("steps", "guidance_scale"),
            ("width", "height"), ("seed", "seed_mode", "n"), "adapters", ("init_image", "strength"),
            ("album", "visibility"), ("set_run", "set_index"),
        ]  # fmt: skip
        return [("What it asks for", {"fields": asked})]


def _level(reached: int) -> int:
    return messages.SUCCESS if reached else messages.WARNING
