"""Set runs in the admin: how far each is, and what can be done about it. They are made through the API."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator

from albums import links
from albums.admin.paging import BoundedPaginator
from generation import services
from generation.admin_messages import charging, counted, tell_retried
from generation.models import SetRun
from imagehub.jobs.models import JobStatus

MOST_PICTURES = 60
"""Pictures on the page of a run; the list of its jobs has them all."""


class SetRunChangeList(ChangeList):
    """A page of set runs, each with how far it is."""

    def get_results(self, request: HttpRequest) -> None:
        """Fetch the page, and count for all of it at once."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        progress = services.progress_of(self.result_list)
        for run in self.result_list:
            run.so_far = progress[run.pk]


@admin.register(SetRun)
class SetRunAdmin(admin.ModelAdmin):
    """Watch set runs, retry what failed, cancel the rest. A run's own page is there to be read."""

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
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    sortable_by = ["created_at"]
    search_fields = ["id", "theme"]
    ordering = ["-created_at", "-id"]
    actions = ["retry", "cancel"]

    class Media:
        css = {"all": ["generation/admin.css"]}

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

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return SetRunChangeList

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

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SetRun | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: SetRun | None = None) -> bool:
        """One may act on runs in the list, but a run's own page is there to be read."""
        return obj is None and super().has_change_permission(request)

    @staticmethod
    def _so_far(run: SetRun) -> services.Progress:
        found = getattr(run, "so_far", None)
        return found or services.progress_of([run])[run.pk]
