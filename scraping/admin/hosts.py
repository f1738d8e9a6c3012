"""The hosts that crawls ask, in the admin: how they answer, and what they allow."""

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.html import format_html

from imagehub.admin_lists import LongListAdmin
from imagehub.errors import ImageHubError
from scraping.admin.crawl_page import seconds, standing_words
from scraping.admin.links import NOTHING
from scraping.models import HostRecord, SiteFile
from scraping.services.hosts import forget_backoff, standing_of

LONGEST_SHOWN = 50_000
"""Characters of a robots.txt."""


class StandingFilter(admin.SimpleListFilter):
    title = "how it is treated"
    parameter_name = "standing"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("closed", "Left alone now"), ("slowed", "Asked more rarely")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[HostRecord]) -> QuerySet[HostRecord]:
        match self.value():
            case "closed":
                return queryset.filter(state__closed_until__gt=timezone.now().timestamp())
            case "slowed":
                return queryset.filter(state__interval__gt=0)
        return queryset


class ReadOnlyAdmin(LongListAdmin):
    """Rows that crawls write."""

    sortable_by: ClassVar[list[str]] = []

    class Media:
        css = {"all": ["imagehub/admin_jobs.css", "scraping/admin.css"]}

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return self.get_fields(request, obj)  # type: ignore[return-value]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(HostRecord)
class HostRecordAdmin(ReadOnlyAdmin):
    """See how hosts answer, and lose patience with their being left alone."""

    list_display = ["host", "now", "interval", "latency", "requests", "seen"]
    list_filter = [StandingFilter]
    search_fields = ["host"]
    ordering = ["-changed_at", "host"]
    actions = ["forget"]
    fields = [
        "host", "now", "interval", "latency", "requests", "failures", "active", "raw", "seen",
    ]  # fmt: skip

    @admin.display(description="Now")
    def now(self, record: HostRecord) -> str:
        return standing_words(standing_of(record))

    @admin.display(description="Interval")
    def interval(self, record: HostRecord) -> str:
        return seconds(standing_of(record).interval)

    @admin.display(description="Latency")
    def latency(self, record: HostRecord) -> str:
        latency = standing_of(record).latency
        return seconds(latency) if latency else NOTHING

    @admin.display(description="Requests")
    def requests(self, record: HostRecord) -> str:
        standing = standing_of(record)
        return f"{standing.requests:,}, {standing.errors:,} failed"

    @admin.display(description="Changed")
    def seen(self, record: HostRecord) -> str:
        return f"{record.changed_at:%Y-%m-%d %H:%M}"

    @admin.display(description="Failures in a row")
    def failures(self, record: HostRecord) -> int:
        return standing_of(record).failures

    @admin.display(description="Requests on their way")
    def active(self, record: HostRecord) -> int:
        return standing_of(record).active

    @admin.display(description="All that is remembered")
    def raw(self, record: HostRecord) -> str:
        return format_html('<pre class="facts">{}</pre>', json.dumps(record.state, indent=1))

    @admin.action(description="Ask again, at the usual rate", permissions=["change"])
    def forget(self, request: HttpRequest, records: QuerySet[HostRecord]) -> None:
        forgiven = 0
        for record in records:
            try:
                forgiven += forget_backoff(record)
            except ImageHubError as error:
                self.message_user(request, f"{record}: {error}", messages.WARNING)
        what = "1 host is" if forgiven == 1 else f"{forgiven} hosts are"
        self.message_user(
            request,
            f"{what} asked again, at the usual rate.",
            messages.SUCCESS if forgiven else messages.WARNING,
        )

    def has_change_permission(self, request: HttpRequest, obj: HostRecord | None = None) -> bool:
        """One may forgive hosts in the list, but what is remembered of one is there to be read."""
        return obj is None and super().has_change_permission(request)


@admin.register(SiteFile)
class SiteFileAdmin(ReadOnlyAdmin):
    """What sites allow, as they said it last."""

    list_display = ["origin", "path", "answer", "size", "fetched"]
    list_filter = ["path"]
    search_fields = ["origin"]
    ordering = ["-changed_at", "-id"]
    fields = ["origin", "path", "answer", "fetched", "text"]

    @admin.display(description="Answer")
    def answer(self, file: SiteFile) -> str:
        if file.fetched_at is None:
            return "not asked yet"
        return "none" if file.status is None else str(file.status)

    @admin.display(description="Size")
    def size(self, file: SiteFile) -> str:
        return filesizeformat(len(file.body)) if file.body else NOTHING

    @admin.display(description="Fetched")
    def fetched(self, file: SiteFile) -> str:
        if file.fetched_at is None:
            return NOTHING
        return f"{datetime.fromtimestamp(file.fetched_at, UTC):%Y-%m-%d %H:%M:%S}"

    @admin.display(description="What it says")
    def text(self, file: SiteFile) -> str:
        text = bytes(file.body).decode("utf-8", "replace")
        return format_html('<pre class="log">{}</pre>', text[:LONGEST_SHOWN]) if text else NOTHING

    def has_change_permission(self, request: HttpRequest, obj: SiteFile | None = None) -> bool:
        return False
