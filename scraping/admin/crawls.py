"""Crawls in the admin: started, watched, cancelled and done again."""

from collections.abc import Callable
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from albums.admin.change_lists import StorableChangeList
from albums.admin.paging import BoundedPaginator
from imagehub import rate_limits
from imagehub.errors import ImageHubError, Invalid
from imagehub.jobs.models import JobStatus
from imagehub.jobs.outlook import look_ahead
from imagehub.jobs.registry import get_kind
from scraping.admin.crawl_page import CrawlPage
from scraping.admin.review_pages import ReviewPages
from scraping.admin.start_form import StartForm
from scraping.models import ImageOutcome, ScrapedImage, ScrapeJob
from scraping.services import crawls
from scraping.services.reviewing import unsettled

KIND = "scraping"


class CrawlChangeList(StorableChangeList):
    """A page of crawls, each with what lies ahead of it."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[ScrapeJob]:
        """Leave out what crawls were asked to do: thousands of addresses may stand there."""
        return super().get_queryset(request, exclude_parameters).defer("config", "retry_of__config")

    def get_results(self, request: HttpRequest) -> None:
        """Fetch the page, and look at all of it at once."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        outlooks = look_ahead(get_kind(KIND), self.result_list)
        for job in self.result_list:
            job.outlook = outlooks[job.pk]


class ToDoFilter(admin.SimpleListFilter):
    """Crawls whose pictures wait for somebody."""

    title = "what there is to do"
    parameter_name = "to_do"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("review", "Pictures to review"), ("lookalikes", "Pictures that look the same")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ScrapeJob]) -> QuerySet[ScrapeJob]:
        match self.value():
            case "review":
                waiting = ScrapedImage.objects.filter(
                    job=OuterRef("pk"), state=ImageOutcome.REVIEW, reason=""
                )
                return queryset.filter(Exists(waiting), needs_review=True)
            case "lookalikes":
                return queryset.filter(Exists(unsettled().filter(job=OuterRef("pk"))))
        return queryset


def _charged(request: HttpRequest, start: Callable[[], ScrapeJob]) -> ScrapeJob:
    """Start a crawl, and count it as the API does: last, so that nothing is counted that is refused."""
    with transaction.atomic():
        job = start()
        rate_limits.charge("scrape_start", rate_limits.rate_limit_key(request))
    return job


def _cancel(request: HttpRequest, job: ScrapeJob) -> ScrapeJob:
    return crawls.cancel_crawl(job)


def _again(request: HttpRequest, job: ScrapeJob) -> ScrapeJob:
    return _charged(request, lambda: crawls.retry_crawl(job, owner=cast(User, request.user)))


Act = Callable[[HttpRequest, ScrapeJob], ScrapeJob]

ACTS: dict[str, tuple[str, Act, str, frozenset[str]]] = {
    "cancel": ("Cancel", _cancel, "“{}” is cancelled, or about to be.", frozenset(JobStatus.ACTIVE)),
    "again": ("Crawl again", _again, "“{}” is queued once more.", frozenset(JobStatus.FINISHED)),
}
"""What can be done with a crawl: how the button is called, what does it, what is said then, and where it makes sense."""


@admin.register(ScrapeJob)
class ScrapeJobAdmin(ReviewPages, CrawlPage, admin.ModelAdmin):
    """Start crawls, watch and cancel them, and decide on what they have brought. None is deleted here."""

    list_display = ["name", "host", "state", "progress_bar", "fetched", "whose", "came"]
    list_filter = ["status", ToDoFilter, "needs_review", ("owner", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["owner"]
    list_per_page = 30
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    sortable_by = ["came"]
    search_fields = ["id", "name", "host"]
    search_help_text = "Words of the name, a host, or an id."
    ordering = ["-created_at", "-id"]
    actions = ["cancel", "again"]

    class Media:
        css = {"all": ["scraping/admin.css"]}

    # ---- The list ----

    @admin.display(description="Status")
    def state(self, job: ScrapeJob) -> str:
        if job.status == JobStatus.RUNNING and job.cancel_requested_at:
            return "Stopping"
        reason = job.error_detail if job.is_finished else job.outlook.reason or job.message  # type: ignore[attr-defined]
        if not reason:
            return job.get_status_display()
        return format_html('{}<div class="reason">{}</div>', job.get_status_display(), reason)

    @admin.display(description="Progress", empty_value="")
    def progress_bar(self, job: ScrapeJob) -> str | None:
        if job.status != JobStatus.RUNNING and not job.progress:
            return None
        return format_html(
            '<progress value="{0}" max="100" aria-label="Progress">{0}%</progress>', job.progress
        )

    @admin.display(description="Has")
    def fetched(self, job: ScrapeJob) -> str:
        return format_html(
            "<div>{} of {} pictures</div><div>{} {}</div>",
            f"{job.images_saved:,}", f"{job.images_found:,}", f"{job.pages:,}", "page" if job.pages == 1 else "pages",
        )  # fmt: skip

    @admin.display(description="Whose")
    def whose(self, job: ScrapeJob) -> str:
        return job.owner.get_username()

    @admin.display(description="Since", ordering="created_at")
    def came(self, job: ScrapeJob) -> str:
        return f"{job.created_at:%Y-%m-%d %H:%M}"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return CrawlChangeList

    # ---- What can be done ----

    @admin.action(description="Cancel selected crawls", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[ScrapeJob]) -> None:
        self._do(request, queryset, "cancel")

    @admin.action(description="Crawl selected ones again", permissions=["change"])
    def again(self, request: HttpRequest, queryset: QuerySet[ScrapeJob]) -> None:
        self._do(request, queryset, "again")

    def _do(self, request: HttpRequest, queryset: QuerySet[ScrapeJob], name: str) -> None:
        """Act on each crawl by itself: what is refused for one is done for the others."""
        for job in queryset.select_related("owner", "album").order_by("created_at"):
            self._try(request, job, name, about=f"{job}: ")

    def _try(self, request: HttpRequest, job: ScrapeJob, name: str, *, about: str = "") -> ScrapeJob:
        """Act on a crawl, and say what came of it. Returns the crawl that is to be looked at then."""
        _, act, said, _ = ACTS[name]
        try:
            done = act(request, job)
        except (ImageHubError, ValidationError) as error:
            self.message_user(request, about + _text(error), messages.WARNING)
            return job
        self.message_user(request, said.format(done), messages.SUCCESS)
        return done

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.act)
        return [path("<uuid:id>/act/", view, name="scraping_scrapejob_act"), *super().get_urls()]

    def act(self, request: HttpRequest, id: Any) -> HttpResponse:  # noqa: A002 - as the path calls it
        """Do what a button on the page of a crawl says."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        job = self.get_object(request, str(id))
        name = request.POST.get("act", "")
        if job is None or name not in ACTS:
            raise Http404
        return HttpResponseRedirect(_page_of(self._try(request, job, name)))

    # ---- Starting one ----

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form that starts a crawl, or start one."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = StartForm(request.POST if request.method == "POST" else None)
        if form.is_bound and form.is_valid() and (job := self._start(request, form)):
            self.message_user(request, f"“{job}” is queued.", messages.SUCCESS)
            return HttpResponseRedirect(_page_of(job))
        context = self.admin_site.each_context(request) | {
            "title": "Start a crawl",
            "opts": self.opts,
            "form": form,
            "media": self.media + form.media,
        }
        return TemplateResponse(request, "admin/scraping/scrapejob/start.html", context)

    def _start(self, request: HttpRequest, form: StartForm) -> ScrapeJob | None:
        try:
            return _charged(
                request, lambda: crawls.start_crawl(owner=cast(User, request.user), **form.options)
            )
        except (Invalid, ValidationError) as error:
            form.tell(error)
        except ImageHubError as error:
            form.add_error(None, str(error))
        return None

    # ---- The page of one crawl ----

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a crawl, with what can be done now."""
        job = self.get_object(request, object_id) if object_id else None
        context: dict[str, Any] = {"may_act": self.has_change_permission(request)}
        if job is not None:
            context["acts"] = [
                (name, label) for name, (label, _, _, where) in ACTS.items() if job.status in where
            ]
            context["reason"] = look_ahead(get_kind(KIND), [job])[job.pk].reason
        return super().changeform_view(request, object_id, form_url, context | (extra_context or {}))

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScrapeJob]:
        return (
            super()
            .get_queryset(request)
            .select_related("owner", "album", "retry_of")
            .defer("retry_of__config")
        )

    def get_fieldsets(self, request: HttpRequest, obj: ScrapeJob | None = None) -> Any:
        """Say how it fares first, then what it is, and last what there is to look into."""
        fares = ["to_do", "figures", "album", *(["ended"] if obj and obj.end_reason else [])]
        what = [
            "name", "description", "addresses", "limits", "obeyed", ("visibility", "needs_review"), "album_name", "earlier",
        ]  # fmt: skip
        life = [
            ("owner", "priority", "request_id"), ("attempt", "max_attempts"), "worker", ("created_at", "queued_at"),
            ("started_at", "finished_at"), ("cancel_requested_at", "purged_at"), "location",
        ]  # fmt: skip
        failed = ["error_code", "error_detail", "error_trace"] if obj is None or obj.error_code else []
        return [
            ("How it goes", {"fields": fares}),
            *([("Why it failed", {"fields": failed})] if failed else []),
            ("Hosts", {"fields": ["hosts"]}),
            ("What it is", {"fields": what}),
            ("Its life", {"fields": life}),
            ("Log", {"fields": ["log"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: ScrapeJob | None = None) -> list[str]:
        own = [
            "to_do",
            "figures",
            "ended",
            "hosts",
            "addresses",
            "limits",
            "obeyed",
            "earlier",
            "location",
            "log",
        ]
        return own + [field.name for field in self.opts.concrete_fields]

    def has_delete_permission(self, request: HttpRequest, obj: ScrapeJob | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ScrapeJob | None = None) -> bool:
        """One may act on crawls, but what a page says of one is there to be read."""
        return obj is None and super().has_change_permission(request)


def _page_of(job: ScrapeJob) -> str:
    return reverse("admin:scraping_scrapejob_change", args=[job.pk])


def _text(error: ImageHubError | ValidationError) -> str:
    return " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
