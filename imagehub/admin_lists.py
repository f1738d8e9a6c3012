"""Lists in the admin that may hold millions of rows, and rows that are only to be looked at."""

from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils.functional import cached_property

MOST_COUNTED = 5000
"""Beyond, a list only says that there are more: to count a million rows takes seconds, and helps nobody."""


class MoreThan(int):
    """A number of rows at which somebody stopped counting."""

    def __str__(self) -> str:
        return f"more than {int(self):,}"


class BoundedPaginator(Paginator):
    """Counts up to a bound, so that the first page of everything costs as much as that of a little.

    What lies behind is found by filters and by searching, not by turning thousands of pages.
    """

    @cached_property
    def count(self) -> int:  # type: ignore[override]
        # Not a COUNT over a subquery: a search is not to be used inside of another query.
        keys = self.object_list.order_by().values_list("pk", flat=True)[: MOST_COUNTED + 1]
        found = sum(1 for _ in keys.iterator())
        return MoreThan(MOST_COUNTED) if found > MOST_COUNTED else found


class LongListAdmin(admin.ModelAdmin):
    """Counts nothing to the end that may be long, and shows it by pages."""

    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator


class ReadOnlyAdmin(LongListAdmin):
    """Rows that write themselves: nobody makes, changes or deletes one here."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
