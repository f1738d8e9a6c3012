"""Crawls in the admin: started, watched, cancelled and done again."""

from collections.abc import Callable
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html

from imagehub import rate_limits
from imagehub.errors import ImageHubError, Invalid
from imagehub.jobs.admin.acts import Act, WholePageChangeList
from imagehub.jobs.admin.jobs import JobAdmin
from imagehub.jobs.models import JobStatus
from imagehub.jobs.run_log import tail_of_job
from scraping.admin.crawl_page import CrawlPage, why_ended
from scraping.admin.review_pages import ReviewPages
from scraping.admin.start_form import StartForm
from scraping.models import ImageOutcome, ScrapedImage, ScrapeJob
from scraping.services import crawls
from scraping.services.folders import log_of
from scraping.services.reviewing import unsettled


class CrawlChangeList(WholePageChangeList):
    """A page of crawls, each with what lies ahead of it."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[ScrapeJob]:
        """Leave out what crawls were asked to do: thousands of addresses may stand there."""
        return super().get_queryset(request, exclude_parameters).defer("config", "retry_of__config")


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


@admin.register(ScrapeJob)
class ScrapeJobAdmin(ReviewPages, CrawlPage, JobAdmin):
    """Start crawls, watch and cancel them, and decide on what they have brought. None is deleted here."""

    list_display = ["name", "host", "state", "progress_bar", "fetched", "whose", "came"]
    list_filter = ["status", ToDoFilter, "needs_review", ("owner", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["owner"]
    list_per_page = 30
    search_fields = ["id", "name", "host"]
    search_help_text = "Words of the name, a host, or an id."
    acts = {
        "cancel": Act(
            "Cancel", _cancel, "“{}” is cancelled, or about to be.", frozenset(JobStatus.ACTIVE),
            "Cancel selected crawls",
        ),
        "again": Act(
            "Crawl again", _again, "“{}” is queued once more.", frozenset(JobStatus.FINISHED),
            "Crawl selected ones again",
        ),
    }  # fmt: skip
    purge_kind = "scraping"
    change_list_template = "admin/scraping/scrapejob/change_list.html"
    shown = [
        "to_do", "figures", "ended", "hosts", "addresses", "limits", "obeyed", "earlier", "location",
    ]  # fmt: skip
    life = [
        ("owner", "priority", "request_id"), ("attempt", "max_attempts"), "worker", ("created_at", "queued_at"),
        ("started_at", "finished_at"), ("cancel_requested_at", "purged_at"), "location",
    ]  # fmt: skip

    class Media:
        css = {"all": ["scraping/admin.css"]}

    # ---- The list ----

    @admin.display(description="Has")
    def fetched(self, job: ScrapeJob) -> str:
        return format_html(
            "<div>{} of {} pictures</div><div>{} {}</div>",
            f"{job.images_saved:,}", f"{job.images_found:,}", f"{job.pages:,}", "page" if job.pages == 1 else "pages",
        )  # fmt: skip

    @admin.display(description="Whose")
    def whose(self, job: ScrapeJob) -> str:
        return job.owner.get_username()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return CrawlChangeList

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

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScrapeJob]:
        return (
            super()
            .get_queryset(request)
            .select_related("owner", "album", "retry_of")
            .defer("retry_of__config")
        )

    def tail_of(self, job: ScrapeJob, *, lines: int) -> list[str]:
        return tail_of_job(log_of(job), job.pk, lines=lines)

    def fares(self, job: ScrapeJob | None) -> list[Any]:
        return ["to_do", "figures", "album", *(["ended"] if job and why_ended(job) else [])]

    def about(self, job: ScrapeJob | None) -> list[tuple[str, dict[str, Any]]]:
        what = [
            "name", "description", "addresses", "limits", "obeyed", ("visibility", "needs_review"), "album_name", "earlier",
        ]  # fmt: skip
        return [("Hosts", {"fields": ["hosts"]}), ("What it is", {"fields": what})]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("scraping.add_scrapejob")  # type: ignore[union-attr]


def _page_of(job: ScrapeJob) -> str:
    return reverse("admin:scraping_scrapejob_change", args=[job.pk])
