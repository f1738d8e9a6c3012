"""What crawls have found, in the admin: each picture and page, how it ended, and where it came from."""

import uuid
from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join

from albums import links
from albums.thumbnails import smallest_size
from imagehub.admin_lists import ReadOnlyAdmin
from imagehub.errors import ImageHubError
from scraping.admin.links import NOTHING, crawl_link, outward, outward_list
from scraping.models import ImageOutcome, ScrapedImage, ScrapedPage, ScrapeJob, address_key, domain_key
from scraping.services.previews import thumbnail_of

MOST_REDIRECTS = 50
THUMBNAIL_KEPT_SECONDS = 3600


class JobFilter(admin.SimpleListFilter):
    """What one crawl has found. Its own page leads here."""

    title = "crawl"
    parameter_name = "job"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        pk = as_uuid(self.value())
        names = ScrapeJob.objects.filter(pk=pk).values_list("name", flat=True)
        return [(str(pk), names.first() or "unknown")] if pk else []

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        pk = as_uuid(self.value())
        return queryset.filter(job=pk) if pk else queryset


class ReasonFilter(admin.SimpleListFilter):
    """Why addresses of one crawl ended as they did. Of all crawls together, only a reason that somebody names."""

    title = "reason"
    parameter_name = "reason"

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        self._rows = model.objects.filter(job=as_uuid(request.GET.get("job")))
        super().__init__(request, params, model, model_admin)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = self.value() or ""
        reasons = {chosen, *self._rows.order_by().values_list("reason", flat=True).distinct()} - {""}
        return [(reason, reason.replace("_", " ").capitalize()) for reason in sorted(reasons)]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(reason=self.value()) if self.value() else queryset


class StateFilter(admin.SimpleListFilter):
    title = "what became of it"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return model_admin.model._meta.get_field("state").choices

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(state=self.value()) if self.value() else queryset


class FoundAdmin(ReadOnlyAdmin):
    """What the lists of pictures and pages have in common: they are there to be read."""

    list_filter = [StateFilter, ReasonFilter, JobFilter]
    sortable_by: ClassVar[list[str]] = []
    search_fields = ["key"]  # what is searched for stands below
    search_help_text = "A whole address, or a host: those below it are found as well."

    class Media:
        css = {"all": ["imagehub/admin_jobs.css", "scraping/admin.css"]}

    @admin.display(description="What became of it")
    def outcome(self, found: Any) -> str:
        if not found.reason:
            return found.get_state_display()
        return format_html(
            '{}<div class="reason">{}</div>', found.get_state_display(), found.reason.replace("_", " ")
        )

    @admin.display(description="Address")
    def short_url(self, found: Any) -> str:
        return format_html('<span class="address">{}</span>', found.url[:200])

    @admin.display(description="Address")
    def address(self, found: Any) -> str:
        return outward(found.url)

    @admin.display(description="Found on")
    def page(self, found: Any) -> str:
        return outward(found.page_url) if found.page_url else "It was named."

    @admin.display(description="Led to")
    def led_to(self, found: Any) -> str:
        return outward(found.final_url)

    @admin.display(description="Redirects")
    def way(self, found: Any) -> str:
        return outward_list(found.redirects, most=MOST_REDIRECTS)

    @admin.display(description="Crawl")
    def crawl(self, found: Any) -> str:
        return crawl_link(found.job)

    @admin.display(description="Crawl")
    def came(self, found: Any) -> str:
        return format_html(
            '{}<div class="reason">{}</div>', crawl_link(found.job), f"{found.fetched_at:%Y-%m-%d %H:%M}"
        )

    @admin.display(description="When")
    def when(self, found: Any) -> str:
        return f"{found.fetched_at:%Y-%m-%d %H:%M:%S}"

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """Leave out what their crawls were asked to do: thousands of addresses may stand there."""
        return super().get_queryset(request).select_related("job").defer("job__config")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        """Find by what an index knows: an address as a whole, or its host."""
        term = search_term.strip()
        if "://" in term:
            queryset = queryset.filter(key=address_key(term))
        elif term:
            queryset = self.from_host(queryset, term)
        return queryset, False

    def from_host(self, rows: QuerySet, host: str) -> QuerySet:
        """Keep what belongs to a host, or one below it."""
        raise NotImplementedError

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [field.name for field in self.opts.concrete_fields]


@admin.register(ScrapedImage)
class ScrapedImageAdmin(FoundAdmin):
    """The pictures that crawls have found, with their provenance."""

    list_display = ["thumbnail", "short_url", "outcome", "size", "came"]
    list_display_links = ["thumbnail", "short_url"]
    own = [
        "thumbnail", "address", "outcome", "page", "led_to", "way", "size", "texts", "library", "lookalike", "crawl", "when",
    ]  # fmt: skip

    @admin.display(description="Picture")
    def thumbnail(self, item: ScrapedImage) -> str:
        """Show what is in the library, or waits for it. Nothing else is kept."""
        if item.image_id:
            url = links.thumbnail_url(item.image_id, smallest_size())
        elif item.state == ImageOutcome.REVIEW:
            url = reverse("admin:scraping_scrapedimage_thumbnail", args=[item.pk])
        else:
            return NOTHING
        return format_html('<span class="thumb"><img src="{}" alt="" loading="lazy"></span>', url)

    @admin.display(description="Size")
    def size(self, item: ScrapedImage) -> str:
        if not item.width:
            return NOTHING
        sides = f"{item.width} \N{MULTIPLICATION SIGN} {item.height}"
        kind = f"{item.format.upper()}, {filesizeformat(item.size_bytes)}"
        return format_html('{}<div class="reason">{}</div>', sides, kind)

    @admin.display(description="Texts about it")
    def texts(self, item: ScrapedImage) -> str:
        rows = ((one.get("origin", ""), one.get("text", "")) for one in item.captions)
        return format_html_join("", "<div><em>{}</em> {}</div>", rows) or NOTHING

    @admin.display(description="In the library")
    def library(self, item: ScrapedImage) -> str:
        return _image_link(item.image_id, item.image)

    @admin.display(description="Looks like")
    def lookalike(self, item: ScrapedImage) -> str:
        return _image_link(item.resembles_id, item.resembles)

    def get_fieldsets(self, request: HttpRequest, obj: ScrapedImage | None = None) -> Any:
        return [
            (None, {"fields": ["thumbnail", "address", "outcome", "library", "lookalike", "crawl"]}),
            (
                "Where it comes from",
                {"fields": ["page", "led_to", "way", "origin", "texts", "licence", ("robots", "opt_out")]},
            ),
            (
                "How it was fetched",
                {"fields": [("status", "attempts"), "when", "size", "sha256", "duplicate_of", "fingerprint"]},
            ),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return self.own + super().get_readonly_fields(request, obj)

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        """List what one crawl has found in its order, and all of them with the latest first."""
        return ["position"] if request.GET.get("job") else ["-id"]

    def from_host(self, rows: Any, host: str) -> QuerySet:
        return rows.from_domain(host)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.thumbnail_view)
        return [path("<id>/thumbnail/", view, name="scraping_scrapedimage_thumbnail"), *super().get_urls()]

    def thumbnail_view(self, request: HttpRequest, id: str) -> HttpResponse:  # noqa: A002 - as the path calls it
        """Answer with a thumbnail of a picture that is not in the library yet."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        item = self.get_object(request, id)
        if item is None or item.state != ImageOutcome.REVIEW:
            raise Http404
        try:
            content = thumbnail_of(item)
        except ImageHubError as error:
            raise Http404 from error
        headers = {
            "Cache-Control": f"private, max-age={THUMBNAIL_KEPT_SECONDS}",
            "X-Content-Type-Options": "nosniff",
        }
        return HttpResponse(content, content_type="image/webp", headers=headers)


@admin.register(ScrapedPage)
class ScrapedPageAdmin(FoundAdmin):
    """The pages that crawls have met."""

    list_display = ["short_url", "outcome", "depth", "images_found", "links_found", "came"]
    own = ["address", "outcome", "page", "led_to", "way", "crawl", "when"]

    def get_fieldsets(self, request: HttpRequest, obj: ScrapedPage | None = None) -> Any:
        return [
            (None, {"fields": ["address", "outcome", ("depth", "images_found", "links_found"), "crawl"]}),
            ("Where it comes from", {"fields": ["page", "led_to", "way", ("robots", "opt_out")]}),
            ("How it was fetched", {"fields": [("status", "attempts"), "when"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return self.own + super().get_readonly_fields(request, obj)

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        return ["id"] if request.GET.get("job") else ["-id"]

    def from_host(self, rows: QuerySet, host: str) -> QuerySet:
        key = domain_key(host)
        return rows.filter(Q(domain=key) | Q(domain__startswith=f"{key}."))


def as_uuid(text: str | None) -> uuid.UUID | None:
    """Return the id that a text is, if it is one."""
    try:
        return uuid.UUID(str(text))
    except ValueError:
        return None


def _image_link(pk: uuid.UUID | None, image: Any) -> str:
    if pk is None:
        return NOTHING
    return format_html('<a href="{}">{}</a>', reverse("admin:albums_image_change", args=[pk]), image)
