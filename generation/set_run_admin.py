"""Set runs in the admin: how far each is, and what can be done about it. They are made through the API."""

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator

from albums import links
from generation import services
from generation.admin_messages import charging, counted, tell_retried
from generation.models import SetRun
from imagehub.jobs.admin.acts import Act, ActingAdmin, Standing
from imagehub.jobs.models import JobStatus

MOST_PICTURES = 60
"""Pictures on the page of a run; the list of its jobs has them all."""


def _cancel(request: HttpRequest, run: SetRun) -> SetRun:
    services.cancel_set_run(run)
    return run


def _retry(request: HttpRequest, run: SetRun) -> SetRun:
    with transaction.atomic():
        services.retry_set_run(run, owner=cast(User, request.user))
        charging(request)(1)
    return run


@admin.register(SetRun)
class SetRunAdmin(ActingAdmin):
    """Watch set runs, retry what failed, cancel the rest."""

    list_display = [
        "short_theme",
        "template",
        "state",
        "progress_bar",
        "pictures_made",
        "owner",
        "created_at",
    ]
    list_filter = [("owner", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["template", "owner"]
    sortable_by = ["created_at"]
    search_fields = ["id", "theme"]
    actions = ["retry", "cancel"]
    acts = {
        "cancel": Act(
            "Cancel the rest", _cancel, "The rest of “{}” is not made.", frozenset(JobStatus.ACTIVE)
        ),
        "retry": Act("Make anew what failed", _retry, "Pictures of “{}” are queued again."),
    }
    purge_kind = "generation"

    class Media:
        css = {"all": ["generation/admin.css"]}

    def look_at(self, rows: list[SetRun]) -> None:
        """Count the jobs of all of them at once."""
        progress = services.progress_of(rows)
        for run in rows:
            run.so_far = progress[run.pk]  # type: ignore[attr-defined]

    def standing_of(self, row: SetRun) -> Standing:
        progress = self._so_far(row)
        said = f"{progress.count(JobStatus.COMPLETED)} of {row.total} pictures. {progress.message}".strip()
        return Standing(progress.status, int(progress.share * 100), said)

    # ---- The list ----

    @admin.display(description="Theme")
    def short_theme(self, run: SetRun) -> str:
        return Truncator(run.theme).chars(60)

    @admin.display(description="Status")
    def state(self, run: SetRun) -> str:
        progress = self._so_far(run)
        if not progress.message:
            return progress.status.label
        return format_html('{}<div class="reason">{}</div>', progress.status.label, progress.message)

    @admin.display(description="Progress")
    def progress_bar(self, run: SetRun) -> str:
        percent = int(self._so_far(run).share * 100)
        return format_html('<progress value="{0}" max="100" aria-label="Progress">{0}%</progress>', percent)

    @admin.display(description="Pictures")
    def pictures_made(self, run: SetRun) -> str:
        return f"{self._so_far(run).count(JobStatus.COMPLETED)} of {run.total}"

    # ---- What can be done ----

    @admin.action(description="Make anew what failed or was cancelled", permissions=["change"])
    def retry(self, request: HttpRequest, queryset: QuerySet[SetRun]) -> None:
        done = services.retry_set_runs(queryset, owner=request.user, charge=charging(request))
        tell_retried(self, request, done)

    @admin.action(description="Cancel the rest of selected set runs", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[SetRun]) -> None:
        reached = services.cancel_set_runs(queryset)
        if reached:
            said = f"{counted(reached, 'picture is', 'pictures are')} not made."
        else:
            said = "Every picture is finished, failed or cancelled already."
        self.message_user(request, said, messages.SUCCESS if reached else messages.WARNING)

    # ---- The page of one run ----

    @admin.display(description="Pictures")
    def pictures(self, run: SetRun) -> str:
        jobs = list(services.items_of(run).order_by("set_index").only("id", "name")[:MOST_PICTURES])
        images = {image.source_id: image.pk for image in services.images_of(jobs)}
        shown = [(images[job.pk], job.name) for job in jobs if job.pk in images]
        return format_html_join(
            " ",
            '<a href="{}"><img src="{}" alt="{}" title="{}" height="96"></a>',
            ((links.page_url(pk), links.thumbnail_url(pk), name, name) for pk, name in shown),
        )

    @admin.display(description="Look")
    def places(self, run: SetRun) -> str:
        jobs = reverse("admin:generation_generationjob_changelist")
        found = [
            (f"{jobs}?set_run__id__exact={run.pk}", "its jobs"),
            (reverse("set-run-contact-sheet", args=[run.pk]), "contact sheet"),
        ]
        if run.album_id:
            found.append((reverse("admin:albums_album_change", args=[run.album_id]), "its album"))
        return format_html_join(" · ", '<a href="{}">{}</a>', found)

    def get_fields(self, request: HttpRequest, obj: SetRun | None = None) -> list[Any]:
        return [
            "places",
            "pictures",
            ("state", "pictures_made"),
            "theme",
            ("template", "album"),
            "total",
            ("owner", "created_at"),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: SetRun | None = None) -> list[str]:
        return ["places", "pictures", "state", "pictures_made"] + [
            field.name for field in self.opts.concrete_fields
        ]

    @staticmethod
    def _so_far(run: SetRun) -> services.Progress:
        found = getattr(run, "so_far", None)
        return found or services.progress_of([run])[run.pk]
