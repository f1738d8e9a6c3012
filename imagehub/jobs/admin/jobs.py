"""What the pages of all kinds of jobs have in common: their queue, how each fares, its life and its log."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from imagehub.database import UNSTORABLE
from imagehub.jobs import pauses
from imagehub.jobs.admin.acts import ActingAdmin, Standing
from imagehub.jobs.models import Job, JobStatus
from imagehub.jobs.outlook import look_ahead
from imagehub.jobs.registry import JobKind, kind_of
from imagehub.operations.queues import QueueStatus, queue_status
from imagehub.templatetags.durations import duration

LOG_LINES = 100
MOST_OWNERS = 12
"""Owners whose jobs are counted above the list; those with most of them."""


class JobAdmin(ActingAdmin):
    """A kind of job: its queue above its list, and the page of each."""

    shown: ClassVar[Sequence[str]] = ()
    """What its page shows beside the columns: names of methods."""
    life: ClassVar[Sequence[Any]] = [
        ("owner", "priority", "request_id"), ("attempt", "max_attempts"), "worker", ("created_at", "queued_at"),
        ("started_at", "finished_at"), "cancel_requested_at",
    ]  # fmt: skip

    @property
    def kind(self) -> JobKind:
        return kind_of(self.model)

    def fares(self, job: Any) -> list[Any]:
        """Return the fields that say how a job fares."""
        raise NotImplementedError

    def about(self, job: Any) -> list[tuple[str, dict[str, Any]]]:
        """Return the sets of fields that say what it is."""
        raise NotImplementedError

    def details(self, job: Any) -> list[tuple[str, dict[str, Any]]]:
        """Return the sets of fields there are to look into, for the end of its page."""
        return []

    def tail_of(self, job: Any, *, lines: int) -> Sequence[str]:
        """Return the last lines of its log; none where nothing is kept of it here."""
        raise NotImplementedError

    # ---- The list ----

    def look_at(self, rows: list[Any]) -> None:
        """Look ahead for all of them at once."""
        outlooks = look_ahead(self.kind, rows)
        for job in rows:
            job.outlook = outlooks[job.pk]

    @admin.display(description="Status")
    def state(self, job: Any) -> str:
        status, reason = _status(job), _reason(job, job.outlook.reason)
        return format_html('{}<div class="reason">{}</div>', status, reason) if reason else status

    @admin.display(description="Progress", empty_value="")
    def progress_bar(self, job: Job) -> str | None:
        if job.status != JobStatus.RUNNING and not job.progress:
            return None
        return format_html(
            '<progress value="{0}" max="100" aria-label="Progress">{0}%</progress>', job.progress
        )

    @admin.display(description="Done in", empty_value="")
    def ends_in(self, job: Any) -> str | None:
        eta = job.outlook.eta_seconds
        return None if eta is None or job.is_finished else duration(eta)

    @admin.display(description="Since", ordering="created_at")
    def came(self, job: Job) -> str:
        return f"{job.created_at:%Y-%m-%d %H:%M}"

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show the list, and above it how the queue stands."""
        [queue] = queue_status([self.kind])
        context = {
            "queue": queue,
            "numbers": _numbers(queue),
            "owners": self._owners(),
            "pause_url": reverse(f"admin:{self.route('pause')}"),
            "resume_url": reverse(f"admin:{self.route('resume')}"),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    def _owners(self) -> list[tuple[str, int, int, int]]:
        """Return the name and the key of those who have most jobs under way, and how many wait and run."""
        jobs = self.model._default_manager
        under_way = jobs.filter(status__in=(JobStatus.QUEUED, JobStatus.RUNNING)).order_by()
        waiting = Count("pk", filter=Q(status=JobStatus.QUEUED))
        running = Count("pk", filter=Q(status=JobStatus.RUNNING))
        rows = under_way.values_list("owner__username", "owner_id").annotate(waiting=waiting, running=running)
        return list(rows.order_by("-waiting", "owner__username")[:MOST_OWNERS])

    # ---- The queue ----

    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site
        return [
            path("pause/", site.admin_view(self.pause), name=self.route("pause")),
            path("resume/", site.admin_view(self.resume), name=self.route("resume")),
            *super().get_urls(),
        ]

    def pause(self, request: HttpRequest) -> HttpResponse:
        """Let no worker take a new job."""
        reason = UNSTORABLE.sub("", request.POST.get("reason", "")).strip()[:200]
        return self._switch(
            request,
            lambda: pauses.pause([self.kind], by=request.user, reason=reason),  # type: ignore[arg-type]
            "The queue is paused. What runs goes on to its end.",
        )

    def resume(self, request: HttpRequest) -> HttpResponse:
        """Let workers take jobs again."""
        return self._switch(request, lambda: pauses.resume([self.kind]), "Jobs are taken again.")

    def _switch(self, request: HttpRequest, switch: Callable[[], None], said: str) -> HttpResponse:
        self.require_change(request)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        switch()
        self.message_user(request, said, messages.SUCCESS)
        return self.back(request, reverse(f"admin:{self.route('changelist')}"))

    # ---- The page of one ----

    def standing_of(self, row: Any) -> Standing:
        reason = _reason(row, look_ahead(self.kind, [row])[row.pk].reason)
        said = f"{_status(row)}: {reason}" if reason else _status(row)
        return Standing(row.status, row.progress, said)

    @admin.display(description="Log")
    def log(self, job: Any) -> str:
        """Show the end of its log. Secrets and prompts were taken out when it was written."""
        text = "\n".join(self.tail_of(job, lines=LOG_LINES)) or "Nothing is kept of it on this machine."
        return format_html('<pre class="log" id="log" data-live>{}</pre>', text)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Say how it fares first, then what it is, and last what there is to look into."""
        failed = ["error_code", "error_detail", "error_trace"] if obj is None or obj.error_code else []
        return [
            ("How it goes", {"fields": self.fares(obj)}),
            *([("Why it failed", {"fields": failed})] if failed else []),
            *self.about(obj),
            ("Its life", {"fields": self.life}),
            ("Log", {"fields": ["log"]}),
            *self.details(obj),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [*self.shown, "log", *(field.name for field in self.opts.concrete_fields)]


def _status(job: Job) -> str:
    if job.status == JobStatus.RUNNING and job.cancel_requested_at:
        return "Stopping"
    return job.get_status_display()


def _reason(job: Job, obstacle: str | None) -> str:
    """Return what there is to say about a status: why it failed, why it cannot go on, or what it is busy with."""
    return job.error_detail if job.is_finished else obstacle or job.message


def _numbers(queue: QueueStatus) -> list[tuple[str, Any]]:
    return [
        ("Waiting", queue.queued),
        ("Running", queue.running),
        ("Workers", queue.workers),
        ("Jobs a minute", queue.rate_per_minute),
        ("Oldest waits", duration(queue.oldest_age_seconds)),
        ("All done in", duration(queue.eta_seconds)),
    ]
