"""Training runs in the admin: how they go, what comes out of them, and what can be done about it."""

from collections.abc import Callable
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join

from albums.admin.paging import BoundedPaginator
from imagehub.errors import ImageHubError
from imagehub.jobs.models import JobStatus
from imagehub.jobs.outlook import look_ahead
from imagehub.jobs.registry import get_kind
from training.admin.drawings import short, sparkline
from training.admin.run_page import NOTHING, RunPage
from training.models import Checkpoint, TrainingRun
from training.services import metrics, promoting, runs

KIND = "training"

SPARK_POINTS = 40

Act = Callable[[HttpRequest, TrainingRun], TrainingRun]


class RunChangeList(ChangeList):
    """A page of runs, each with what lies ahead of it and the course of its loss."""

    def get_results(self, request: HttpRequest) -> None:
        """Fetch the page, and look at all of it at once."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        outlooks = look_ahead(get_kind(KIND), self.result_list)
        sparks = metrics.sparks(self.result_list, points=SPARK_POINTS)
        for run in self.result_list:
            run.outlook, run.spark = outlooks[run.pk], sparks[run.pk]


def _start(request: HttpRequest, run: TrainingRun) -> TrainingRun:
    return runs.start_run(run)


def _save(request: HttpRequest, run: TrainingRun) -> TrainingRun:
    return runs.cancel_run(run, TrainingRun.StopMode.SAVE)


def _cancel(request: HttpRequest, run: TrainingRun) -> TrainingRun:
    return runs.cancel_run(run, TrainingRun.StopMode.DISCARD)


def _resume(request: HttpRequest, run: TrainingRun) -> TrainingRun:
    return runs.resume_run(run)


def _clone(request: HttpRequest, run: TrainingRun) -> TrainingRun:
    return runs.clone_run(run, owner=cast(User, request.user))


ACTS: dict[str, tuple[str, Act, str, frozenset[str]]] = {
    "start": ("Start", _start, "“{}” is queued.", frozenset({"pending"})),
    "stop_and_save": ("Stop and save", _save, "“{}” is stopping, and saves.", frozenset({"running"})),
    "cancel": (
        "Cancel", _cancel, "“{}” is cancelled, or about to be.", frozenset({"pending", "queued", "running"}),
    ),
    "resume": ("Resume", _resume, "“{}” is queued again.", frozenset({"failed", "cancelled"})),
    "clone": ("Clone", _clone, "“{}” is there once more, and pending.", frozenset(JobStatus.values)),
}  # fmt: skip
"""What can be done with a run: how the button is called, what does it, what is said then, and where it makes sense."""


@admin.register(TrainingRun)
class TrainingRunAdmin(RunPage, admin.ModelAdmin):
    """Watch training runs, start and stop them, and choose what is kept. They are made through the API."""

    list_display = ["name", "state", "progress_bar", "steps", "ends_in", "loss", "whose", "came"]
    list_filter = ["status", "base_model", ("owner", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["base_model", "owner"]
    list_per_page = 30
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    sortable_by = ["came"]
    search_fields = ["id", "name"]
    search_help_text = "Words of the name, or an id."
    ordering = ["-created_at", "-id"]
    actions = ["start", "stop_and_save", "cancel", "resume", "clone"]

    class Media:
        css = {"all": ["training/admin.css"]}

    # ---- The list ----

    @admin.display(description="Status")
    def state(self, run: TrainingRun) -> str:
        if run.status == JobStatus.RUNNING and run.cancel_requested_at:
            return "Stopping"
        reason = run.outlook.reason or run.message  # type: ignore[attr-defined]
        if run.is_finished or not reason:
            reason = run.error_detail
        if not reason:
            return run.get_status_display()
        return format_html('{}<div class="reason">{}</div>', run.get_status_display(), reason)

    @admin.display(description="Progress", empty_value="")
    def progress_bar(self, run: TrainingRun) -> str | None:
        if run.status != JobStatus.RUNNING and not run.progress:
            return None
        return format_html(
            '<progress value="{0}" max="100" aria-label="Progress">{0}%</progress>', run.progress
        )

    @admin.display(description="Step")
    def steps(self, run: TrainingRun) -> str:
        return f"{run.step} / {run.total_steps}"

    @admin.display(description="Done in", empty_value="")
    def ends_in(self, run: TrainingRun) -> str | None:
        eta = run.outlook.eta_seconds  # type: ignore[attr-defined]
        return None if eta is None or run.is_finished else duration(eta)

    @admin.display(description="Loss", empty_value="")
    def loss(self, run: TrainingRun) -> str | None:
        if run.training_loss is None:
            return None
        return format_html("{} {}", sparkline(run.spark), short(run.training_loss))  # type: ignore[attr-defined]

    @admin.display(description="Whose, and on")
    def whose(self, run: TrainingRun) -> str:
        parts = (run.owner.get_username(), run.base_model.name)
        return format_html_join("", "<div>{}</div>", ((part,) for part in parts))

    @admin.display(description="Since", ordering="created_at")
    def came(self, run: TrainingRun) -> str:
        return f"{run.created_at:%Y-%m-%d %H:%M}"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RunChangeList

    # ---- What can be done ----

    @admin.action(description="Start selected runs", permissions=["change"])
    def start(self, request: HttpRequest, queryset: QuerySet[TrainingRun]) -> None:
        self._do(request, queryset, "start")

    @admin.action(description="Stop selected runs, and save what they have learned", permissions=["change"])
    def stop_and_save(self, request: HttpRequest, queryset: QuerySet[TrainingRun]) -> None:
        self._do(request, queryset, "stop_and_save")

    @admin.action(description="Cancel selected runs, and save nothing", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[TrainingRun]) -> None:
        self._do(request, queryset, "cancel")

    @admin.action(description="Resume selected runs", permissions=["change"])
    def resume(self, request: HttpRequest, queryset: QuerySet[TrainingRun]) -> None:
        self._do(request, queryset, "resume")

    @admin.action(description="Clone selected runs", permissions=["change"])
    def clone(self, request: HttpRequest, queryset: QuerySet[TrainingRun]) -> None:
        self._do(request, queryset, "clone")

    def _do(self, request: HttpRequest, queryset: QuerySet[TrainingRun], name: str) -> None:
        """Act on each run by itself: what is refused for one is done for the others."""
        _, act, said, _ = ACTS[name]
        found = queryset.select_related("base_model", "owner", "dataset", "adapter").order_by("created_at")
        for run in found:
            self._try(request, lambda run=run: said.format(act(request, run)), about=f"{run}: ")

    def _try(self, request: HttpRequest, act: Callable[[], str], *, about: str = "") -> None:
        try:
            said = act()
        except (ImageHubError, ValidationError) as error:
            text = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            self.message_user(request, f"{about}{text}", messages.WARNING)
        else:
            self.message_user(request, said, messages.SUCCESS)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.act)
        return [path("<uuid:id>/act/", view, name="training_trainingrun_act"), *super().get_urls()]

    def act(self, request: HttpRequest, id: Any) -> HttpResponse:  # noqa: A002 - as the path calls it
        """Do what a button on the page of a run says."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        run = self.get_object(request, str(id))
        if run is None:
            raise Http404
        name = request.POST.get("act", "")
        if name in ACTS:
            _, act, said, _ = ACTS[name]
            self._try(request, lambda: said.format(act(request, run)))
        else:
            self._act_on_checkpoint(request, run, name)
        return HttpResponseRedirect(reverse("admin:training_trainingrun_change", args=[run.pk]))

    def _act_on_checkpoint(self, request: HttpRequest, run: TrainingRun, name: str) -> None:
        user = cast(User, request.user)
        try:
            checkpoint = run.checkpoints.get(pk=request.POST.get("checkpoint"))
        except (Checkpoint.DoesNotExist, ValidationError) as error:
            raise Http404 from error
        acts: dict[str, tuple[Callable[[], Checkpoint], str]] = {
            "pin": (
                lambda: promoting.pin_checkpoint(checkpoint, is_pinned=True),
                "The checkpoint of step {} is kept.",
            ),
            "unpin": (
                lambda: promoting.pin_checkpoint(checkpoint, is_pinned=False),
                "The checkpoint of step {} may go.",
            ),
            "promote": (
                lambda: promoting.promote_checkpoint(checkpoint, user=user),
                "An adapter of step {} is in the making.",
            ),
        }
        if name not in acts:
            raise Http404
        act, said = acts[name]
        self._try(request, lambda: said.format(act().step))

    # ---- The page of one run ----

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a run, with what can be done now and its checkpoints."""
        run = self.get_object(request, object_id) if object_id else None
        context: dict[str, Any] = {"may_act": self.has_change_permission(request)}
        if run is not None:
            context["acts"] = [
                (name, label) for name, (label, _, _, where) in ACTS.items() if run.status in where
            ]
            context["checkpoints"] = run.checkpoints.select_related("run", "adapter").order_by("-step")
        return super().changeform_view(request, object_id, form_url, context | (extra_context or {}))

    def get_fieldsets(self, request: HttpRequest, obj: TrainingRun | None = None) -> Any:
        """Say how it fares first, then what it is, and last what there is to look into."""
        fares = [
            "losses", "samples_grid", ("status", "phase"), ("step", "total_steps", "eta_seconds"), "message",
            ("training_loss", "validation_loss", "base_loss"), "adapter", "disk",
        ]  # fmt: skip
        is_ahead = obj is not None and obj.status in (JobStatus.PENDING, JobStatus.QUEUED)
        what = [
            "name", "description", ("base_model", "trigger_word"), "pictures", *(["preflight"] if is_ahead else []),
            "cloned_from",
        ]  # fmt: skip
        life = [
            ("owner", "priority", "request_id"), ("attempt", "max_attempts", "resumes"), ("worker", "stop_mode"),
            ("created_at", "queued_at"), ("started_at", "finished_at"), ("cancel_requested_at", "purged_at"),
        ]  # fmt: skip
        failed = ["error_code", "error_detail", "error_trace"] if obj is None or obj.error_code else []
        return [
            ("How it goes", {"fields": fares}),
            *([("Why it failed", {"fields": failed})] if failed else []),
            ("What it is", {"fields": what}),
            ("Its life", {"fields": life}),
            ("Log", {"fields": ["log"]}),
            ("Recipe", {"fields": ["recipe", "config_sha256"], "classes": ["collapse"]}),
            ("Expected and measured", {"fields": ["expected", "measured"], "classes": ["collapse"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: TrainingRun | None = None) -> list[str]:
        own = [
            "losses", "samples_grid", "preflight", "log", "disk", "recipe", "expected", "measured", "pictures",
        ]  # fmt: skip
        return own + [field.name for field in self.opts.concrete_fields]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: TrainingRun | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: TrainingRun | None = None) -> bool:
        """One may act on runs, but what a page says of one is there to be read."""
        return obj is None and super().has_change_permission(request)


def duration(seconds: float | None) -> str:
    """Return a time for people: seconds, then minutes, then hours."""
    if seconds is None:
        return NOTHING
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
