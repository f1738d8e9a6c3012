"""The queue of generation in the admin: how it stands, what each job asks for, and what can be done about it."""

import socket
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator

from albums import links
from albums.admin.paging import BoundedPaginator
from albums.models import Image
from generation import services
from generation.admin_messages import charging, counted, tell_retried
from generation.models import GenerationJob
from generation.set_run_admin import SetRunAdmin  # noqa: F401 - Django looks for admin pages here
from imagehub import roots
from imagehub.database import UNSTORABLE
from imagehub.jobs import pauses
from imagehub.jobs.models import JobStatus
from imagehub.jobs.outlook import look_ahead
from imagehub.jobs.registry import get_kind
from imagehub.jobs.run_log import tail_of_job
from imagehub.operations.queues import queue_status

KIND = "generation"

PRIORITY_STEP = 10
LOG_LINES = 60
MOST_OWNERS = 12
"""Owners whose jobs are counted above the list; those with most of them."""

MOST_RETRIES = 20
"""Tries of one picture that are listed on the page of any of them."""


class QueueChangeList(ChangeList):
    """A page of jobs, each with what lies ahead of it."""

    def get_results(self, request: HttpRequest) -> None:
        """Fetch the page, and look ahead for all of it at once."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        outlooks = look_ahead(get_kind(KIND), self.result_list)
        for job in self.result_list:
            job.outlook = outlooks[job.pk]


@admin.register(GenerationJob)
class GenerationJobAdmin(admin.ModelAdmin):
    """Watch the queue, and change it. Jobs are made through the API, and a job's own page is there to be read."""

    list_display = [
        "short_prompt", "state", "progress_bar", "place", "ends_in", "priority", "whose", "came",
    ]  # fmt: skip
    list_filter = ["status", "base_model", ("owner", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["base_model", "owner"]
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    sortable_by = ["came"]
    search_fields = ["id", "prompt"]
    search_help_text = "Words of the prompt, or an id."
    date_hierarchy = "created_at"
    ordering = ["-created_at", "-id"]
    actions = ["cancel", "retry", "put_first", "put_back"]
    change_list_template = "admin/generation/generationjob/change_list.html"
    change_form_template = "admin/generation/generationjob/change_form.html"

    class Media:
        css = {"all": ["generation/admin.css"]}

    # ---- The list ----

    @admin.display(description="Prompt")
    def short_prompt(self, job: GenerationJob) -> str:
        return Truncator(job.prompt).chars(60)

    @admin.display(description="Status")
    def state(self, job: GenerationJob) -> str:
        if job.status == JobStatus.RUNNING and job.cancel_requested_at:
            return "Stopping"
        reason = job.outlook.reason  # type: ignore[attr-defined]
        if reason is None:
            return job.get_status_display()
        return format_html('{}<div class="reason">{}</div>', job.get_status_display(), reason)

    @admin.display(description="Progress", empty_value="")
    def progress_bar(self, job: GenerationJob) -> str | None:
        if job.status != JobStatus.RUNNING and not job.progress:
            return None
        return format_html(
            '<progress value="{0}" max="100" aria-label="Progress">{0}%</progress>', job.progress
        )

    @admin.display(description="Place", empty_value="")
    def place(self, job: GenerationJob) -> int | None:
        return job.outlook.position or None  # type: ignore[attr-defined]

    @admin.display(description="Done in", empty_value="")
    def ends_in(self, job: GenerationJob) -> str | None:
        eta = job.outlook.eta_seconds  # type: ignore[attr-defined]
        return None if eta is None or job.is_finished else duration(eta)

    @admin.display(description="Whose, and with")
    def whose(self, job: GenerationJob) -> str:
        parts = (job.owner.get_username(), job.base_model.name)
        return format_html_join("", "<div>{}</div>", ((part,) for part in parts))

    @admin.display(description="Since", ordering="created_at")
    def came(self, job: GenerationJob) -> str:
        return f"{job.created_at:%Y-%m-%d %H:%M}"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return QueueChangeList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show the list, and above it how the queue stands."""
        [queue] = queue_status([get_kind(KIND)])
        numbers = [
            ("Waiting", queue.queued),
            ("Running", queue.running),
            ("Workers", queue.workers),
            ("Jobs a minute", queue.rate_per_minute),
            ("Oldest waits", duration(queue.oldest_age_seconds)),
            ("All done in", duration(queue.eta_seconds)),
        ]
        context = {
            "queue": queue,
            "numbers": numbers,
            "owners": _owners(),
            "may_change": self.has_change_permission(request),
        }
        return super().changelist_view(request, context | (extra_context or {}))

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

    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site
        return [
            path("pause/", site.admin_view(self.pause), name="generation_generationjob_pause"),
            path("resume/", site.admin_view(self.resume), name="generation_generationjob_resume"),
            *super().get_urls(),
        ]

    def pause(self, request: HttpRequest) -> HttpResponse:
        """Let no worker take a new job."""
        return self._switch(
            request,
            lambda: pauses.pause(
                [get_kind(KIND)],
                by=request.user,
                reason=UNSTORABLE.sub("", request.POST.get("reason", "")).strip()[:200],
            ),
            "The queue is paused. What runs goes on to its end.",
        )

    def resume(self, request: HttpRequest) -> HttpResponse:
        """Let workers take jobs again."""
        return self._switch(request, lambda: pauses.resume([get_kind(KIND)]), "Jobs are taken again.")

    def _switch(self, request: HttpRequest, act: Callable[[], None], said: str) -> HttpResponse:
        if not self.has_change_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        act()
        self.message_user(request, said, messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:generation_generationjob_changelist"))

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

    @admin.display(description="Log", empty_value="Nothing is kept of it on this machine.")
    def log(self, job: GenerationJob) -> str | None:
        """Show the end of what the engine said of it. Secrets and prompts were taken out when it was written."""
        host, _, pid = job.worker.rpartition(":")
        if host != socket.gethostname() or not pid.isdigit():
            return None
        lines = tail_of_job(roots.logs_root() / f"engine-{pid}.log", job.pk, lines=LOG_LINES)
        return format_html('<pre class="log">{}</pre>', "\n".join(lines)) if lines else None

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

    def get_fieldsets(self, request: HttpRequest, obj: GenerationJob | None = None) -> Any:
        """Say what it is to make, how it fares, and what failed, in this order."""
        asked = [
            "prompt", "negative_prompt", "name", ("base_model", "scheduler"), ("steps", "guidance_scale"),
            ("width", "height"), ("seed", "seed_mode", "n"), "adapters", ("init_image", "strength"),
            ("album", "visibility"), ("set_run", "set_index"),
        ]  # fmt: skip
        fares = [
            ("status", "progress", "step", "total_steps"), "message", ("priority", "overtaken"),
            ("attempt", "max_attempts"), "worker", ("created_at", "queued_at"), ("started_at", "finished_at"),
            "cancel_requested_at", ("owner", "request_id"), "phases",
        ]  # fmt: skip
        failed = ["error_code", "error_detail", "error_trace"] if obj is None or obj.error_code else []
        return [
            (None, {"fields": ["pictures", "tries"]}),
            ("What it asks for", {"fields": asked}),
            ("How it fares", {"fields": fares}),
            *([("Why it failed", {"fields": failed})] if failed else []),
            ("The engine's log", {"fields": ["log"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: GenerationJob | None = None) -> list[str]:
        own = ["pictures", "tries", "adapters", "phases", "log"]
        return own + [field.name for field in self.opts.concrete_fields]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: GenerationJob | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: GenerationJob | None = None) -> bool:
        """One may act on jobs in the list, but a job's own page is there to be read."""
        return obj is None and super().has_change_permission(request)


def duration(seconds: float | None) -> str:
    """Return a time for people: seconds, then minutes, then hours."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _level(reached: int) -> int:
    return messages.SUCCESS if reached else messages.WARNING


def _owners() -> list[tuple[str, int, int, int]]:
    """Return the name and the key of those who have most jobs under way, and how many wait and run."""
    under_way = GenerationJob.objects.filter(status__in=(JobStatus.QUEUED, JobStatus.RUNNING)).order_by()
    waiting = Count("pk", filter=Q(status=JobStatus.QUEUED))
    running = Count("pk", filter=Q(status=JobStatus.RUNNING))
    rows = under_way.values_list("owner__username", "owner_id").annotate(waiting=waiting, running=running)
    return list(rows.order_by("-waiting", "owner__username")[:MOST_OWNERS])
