"""Training runs in the admin: how they go, what comes out of them, and what can be done about it."""

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join

from imagehub.jobs.admin.acts import Act
from imagehub.jobs.admin.jobs import JobAdmin
from imagehub.jobs.models import JobStatus
from training.admin.drawings import short, sparkline
from training.admin.run_page import RunPage
from training.models import Checkpoint, TrainingRun
from training.services import metrics, promoting, run_logs, runs

SPARK_POINTS = 40


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


def _pin(request: HttpRequest, checkpoint: Checkpoint) -> int:
    return promoting.pin_checkpoint(checkpoint, is_pinned=True).step


def _unpin(request: HttpRequest, checkpoint: Checkpoint) -> int:
    return promoting.pin_checkpoint(checkpoint, is_pinned=False).step


def _promote(request: HttpRequest, checkpoint: Checkpoint) -> int:
    return promoting.promote_checkpoint(checkpoint, user=cast(User, request.user)).step


CHECKPOINT_ACTS = {
    "pin": Act("Pin", _pin, "The checkpoint of step {} is kept."),
    "unpin": Act("Let go", _unpin, "The checkpoint of step {} may go."),
    "promote": Act("Make an adapter", _promote, "An adapter of step {} is in the making."),
}


@admin.register(TrainingRun)
class TrainingRunAdmin(RunPage, JobAdmin):
    """Watch training runs, start and stop them, and choose what is kept. They are made through the API."""

    list_display = ["name", "state", "progress_bar", "steps", "ends_in", "loss", "whose", "came"]
    list_filter = ["status", "base_model", ("owner", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["base_model", "owner"]
    list_per_page = 30
    search_fields = ["id", "name"]
    search_help_text = "Words of the name, or an id."
    acts = {
        "start": Act("Start", _start, "“{}” is queued.", frozenset({"pending"}), "Start selected runs"),
        "stop_and_save": Act(
            "Stop and save", _save, "“{}” is stopping, and saves.", frozenset({"running"}),
            "Stop selected runs, and save what they have learned",
        ),
        "cancel": Act(
            "Cancel", _cancel, "“{}” is cancelled, or about to be.", frozenset(JobStatus.ACTIVE),
            "Cancel selected runs, and save nothing",
        ),
        "resume": Act(
            "Resume", _resume, "“{}” is queued again.", frozenset({"failed", "cancelled"}), "Resume selected runs"
        ),
        "clone": Act(
            "Clone", _clone, "“{}” is there once more, and pending.", on_list="Clone selected runs"
        ),
    }  # fmt: skip
    purge_kind = "training"
    events_route = "training-events"
    change_form_template = "admin/training/trainingrun/change_form.html"
    shown = ["losses", "samples_grid", "preflight", "disk", "recipe", "expected", "measured", "pictures"]
    life = [
        ("owner", "priority", "request_id"), ("attempt", "max_attempts", "resumes"), ("worker", "stop_mode"),
        ("created_at", "queued_at"), ("started_at", "finished_at"), ("cancel_requested_at", "purged_at"),
    ]  # fmt: skip

    class Media:
        css = {"all": ["training/admin.css"]}

    def look_at(self, rows: list[TrainingRun]) -> None:
        """Look ahead, and at the course of their losses."""
        super().look_at(rows)
        sparks = metrics.sparks(rows, points=SPARK_POINTS)
        for run in rows:
            run.spark = sparks[run.pk]  # type: ignore[attr-defined]

    # ---- The list ----

    @admin.display(description="Step")
    def steps(self, run: TrainingRun) -> str:
        return f"{run.step} / {run.total_steps}"

    @admin.display(description="Loss", empty_value="")
    def loss(self, run: TrainingRun) -> str | None:
        if run.training_loss is None:
            return None
        return format_html("{} {}", sparkline(run.spark), short(run.training_loss))  # type: ignore[attr-defined]

    @admin.display(description="Whose, and on")
    def whose(self, run: TrainingRun) -> str:
        parts = (run.owner.get_username(), run.base_model.name)
        return format_html_join("", "<div>{}</div>", ((part,) for part in parts))

    # ---- What can be done ----

    def act_by_name(self, request: HttpRequest, row: TrainingRun, name: str) -> TrainingRun:
        """Do what a button says of a run, or of one of its checkpoints."""
        if name in self.acts:
            return super().act_by_name(request, row, name)
        self._act_on_checkpoint(request, row, name)
        return row

    def _act_on_checkpoint(self, request: HttpRequest, run: TrainingRun, name: str) -> None:
        if name not in CHECKPOINT_ACTS:
            raise Http404
        try:
            checkpoint = run.checkpoints.get(pk=request.POST.get("checkpoint"))
        except (Checkpoint.DoesNotExist, ValidationError) as error:
            raise Http404 from error
        self._try(request, CHECKPOINT_ACTS[name], checkpoint)

    # ---- The page of one run ----

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a run, with its checkpoints."""
        run = self.get_object(request, object_id) if object_id else None
        checkpoints = run.checkpoints.select_related("run", "adapter").order_by("-step") if run else []
        context = {"checkpoints": checkpoints}
        return super().changeform_view(request, object_id, form_url, context | (extra_context or {}))

    def tail_of(self, job: TrainingRun, *, lines: int) -> list[str]:
        return run_logs.tail(job, lines=lines)

    def fares(self, job: TrainingRun | None) -> list[Any]:
        return [
            "losses", "samples_grid", ("status", "phase"), ("step", "total_steps", "eta_seconds"), "message",
            ("training_loss", "validation_loss", "base_loss"), "adapter", "disk",
        ]  # fmt: skip

    def about(self, job: TrainingRun | None) -> list[tuple[str, dict[str, Any]]]:
        is_ahead = job is not None and job.status in (JobStatus.PENDING, JobStatus.QUEUED)
        what = [
            "name", "description", ("base_model", "trigger_word"), "pictures", *(["preflight"] if is_ahead else []),
            "cloned_from",
        ]  # fmt: skip
        return [("What it is", {"fields": what})]

    def details(self, job: TrainingRun | None) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("Recipe", {"fields": ["recipe", "config_sha256"], "classes": ["collapse"]}),
            ("Expected and measured", {"fields": ["expected", "measured"], "classes": ["collapse"]}),
        ]
