"""Going through rows by their age, however many there are: some keys at a time, each list by a query of its own.

No cursor stays open over what is written meanwhile: SQLite would not let a connection write that still reads what others
have changed since, and PostgreSQL would keep all that was deleted.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import F, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast
from django.db.models.lookups import Exact, GreaterThan, GreaterThanOrEqual

BATCH = 1000
"""Rows that are looked at, or deleted, by one statement."""


def older_than(
    rows: QuerySet[Any], cutoff: datetime, *, by: str, size: int | None = None
) -> Iterator[list[Any]]:
    """Yield the keys of rows that are older than a moment, the oldest first, in lists. Who takes one may delete these rows.

    Args:
        rows: which; an order they have is not kept.
        cutoff: the moment.
        by: the column that says how old a row is. Where it is null, the row is not old. An index that begins with it serves.
        size: keys in a list; ``BATCH`` by default.
    """
    size = size or BATCH
    old = rows.filter(**{f"{by}__lt": cutoff}).order_by(by, "pk")
    # SQLite compares texts, and those that the database's clock has written are shorter: the boundary is as it stands there.
    is_text = connections[rows.db].vendor == "sqlite"
    keys = old.annotate(mark=Cast(by, TextField()) if is_text else F(by)).values_list("pk", "mark")
    found = list(keys[:size])
    while found:
        last, mark = found[-1]
        yield [pk for pk, _ in found]
        boundary = Value(mark)
        behind = Q(GreaterThan(F(by), boundary)) | Q(Exact(F(by), boundary), pk__gt=last)
        # The first condition says nothing new, and lets the databases begin in the index where the last list ended.
        found = list(keys.filter(GreaterThanOrEqual(F(by), boundary), behind)[:size])


def in_order(rows: QuerySet[Any], *, by: str = "pk", size: int | None = None) -> Iterator[list[Any]]:
    """Yield the keys of rows in lists, in the order of a column in which no two of them are equal. Who takes a list may delete these rows."""
    size = size or BATCH
    keys = rows.order_by(by).values_list("pk", by)
    found = list(keys[:size])
    while found:
        yield [pk for pk, _ in found]
        found = list(keys.filter(**{f"{by}__gt": found[-1][1]})[:size])


def delete_in_pieces(rows: QuerySet[Any], *, by: str = "pk", on_progress: Callable[[], None]) -> int:
    """Delete rows, some at a time, in the order of a column in which no two of them are equal; return how many.

    Without signals, for which each row would be read: for rows on which nothing hangs.
    """
    deleted = 0
    for keys in in_order(rows, by=by):
        deleted += rows.filter(pk__in=keys)._raw_delete(using=rows.db)
        on_progress()
    return deleted
