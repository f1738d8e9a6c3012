"""Lists page by page, by the place of the last row and not by counting.

DRF's own ``CursorPagination`` steps over equal values of one column with an offset, and after a bulk insert
serves the same page for ever. Here a place is the full key of a row, which is unique.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from django.core import signing
from django.core.exceptions import ValidationError
from django.db.models import BooleanField, F, Field, Func, Q, QuerySet, Value
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param

from imagehub.errors import Invalid

LIMIT, CURSOR, COUNT, ORDERING = "limit", "cursor", "count", "ordering"

_LIMIT = re.compile("[0-9]{1,9}")
_SIGNER = signing.Signer(salt="imagehub.api.pagination", sep="~")


@dataclass(frozen=True)
class Cursor:
    """A place in a list: behind a row, or before it when the list is read backwards.

    Without a key it is the beginning; backwards, the end.
    """

    is_backward: bool = False
    key: tuple[Any, ...] | None = None

    def encode(self, *, of: str) -> str:
        """Write it for the caller, bound to one list. The signature is there so that nobody edits it."""
        key = None if self.key is None else [_as_json(value) for value in self.key]
        return _SIGNER.sign_object([int(self.is_backward), key, of])

    @classmethod
    def decode(cls, text: str, *, of: str, fields: Sequence[Field]) -> Self:
        """Read what :meth:`encode` wrote.

        Raises:
            Invalid: it was not written here, or it was written for another list.
        """
        try:
            is_backward, key, list_of = _SIGNER.unsign_object(text)
            if list_of == of and key is not None:
                key = tuple(_from_json(field, value) for field, value in zip(fields, key, strict=True))
        except (signing.BadSignature, ValidationError, ValueError, TypeError) as error:
            raise Invalid("This is no cursor of this list.", pointer=f"/{CURSOR}") from error
        if list_of != of:
            raise Invalid(
                "The cursor belongs to a list with other filters or another order.",
                pointer=f"/{CURSOR}",
                code="cursor_mismatch",
            )
        return cls(bool(is_backward), key)


class KeysetPagination(BasePagination):
    """``?limit=&cursor=`` with ``{"results", "next", "previous"}``; ``?count=exact`` adds ``count``.

    The view names its columns in ``keyset_ordering``, such as ``("-created_at", "-id")``. They hold no nulls;
    the primary key is added when the last of them is neither it nor among the view's ``unique_keys``. If the view
    lists ``orderings``, such as ``{"name": ("name",)}``, the caller may choose one with ``?ordering=``.

    Costs one query whatever the page. A row that is there throughout is met exactly once, also while others
    come and go.
    """

    default_limit = 50
    max_limit = 200

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        params = request.query_params
        limit = self._limit(params)
        self._count = self._wants_count(params) and queryset.count()
        ordering = self._ordering(params, view, queryset)
        fields = [_field(queryset, name) for name, _ in ordering]
        self._list = _fingerprint(request, ordering)
        self._url = request.build_absolute_uri()
        cursor = Cursor.decode(params[CURSOR], of=self._list, fields=fields) if CURSOR in params else Cursor()

        # Backwards is forwards in the opposite order, turned round at the end.
        walk = [(name, is_descending != cursor.is_backward) for name, is_descending in ordering]
        if cursor.key is not None:
            queryset = queryset.filter(_behind(walk, cursor.key, fields))
        names = [f"-{name}" if is_descending else name for name, is_descending in walk]
        rows = list(queryset.order_by(*names)[: limit + 1])
        is_more = len(rows) > limit
        page = rows[:limit]
        if cursor.is_backward:
            page.reverse()

        def place(row: Any, *, is_backward: bool) -> Cursor:
            return Cursor(is_backward, tuple(getattr(row, name) for name, _ in ordering))

        if page:
            after, before = place(page[-1], is_backward=False), place(page[0], is_backward=True)
        else:  # all that was there has gone: what is left lies on the other side
            after, before = Cursor(), Cursor(is_backward=True)
        came_from = CURSOR in params
        self._next = after if (came_from if cursor.is_backward else is_more) else None
        self._previous = before if (is_more if cursor.is_backward else came_from) else None
        return page

    def get_paginated_response(self, data: Any) -> Response:
        count = {} if self._count is False else {"count": self._count}
        return Response(
            {"results": data, "next": self._link(self._next), "previous": self._link(self._previous)} | count
        )

    def get_query_params(self, view: Any) -> set[str]:
        """Return the names of the query parameters that are read here."""
        return {LIMIT, CURSOR, COUNT} | ({ORDERING} if getattr(view, "orderings", None) else set())

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": "string", "format": "uri", "nullable": True}
        return {
            "type": "object",
            "required": ["results", "next", "previous"],
            "properties": {
                "results": schema,
                "next": {**link, "description": "The address of the next page."},
                "previous": {**link, "description": "The address of the page before."},
                "count": {"type": "integer", "description": "Only with `?count=exact`: rows on all pages."},
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        def parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
            return {
                "name": name,
                "in": "query",
                "required": False,
                "description": description,
                "schema": schema,
            }

        parameters = [
            parameter(
                LIMIT,
                "How many rows a page has.",
                {"type": "integer", "minimum": 1, "maximum": self.max_limit, "default": self.default_limit},
            ),
            parameter(CURSOR, "Where the page begins, as `next` and `previous` say it.", {"type": "string"}),
            parameter(COUNT, "Also count the rows of all pages.", {"type": "string", "enum": ["exact"]}),
        ]
        if orderings := getattr(view, "orderings", None):
            parameters.append(
                parameter(ORDERING, "The order of the rows.", {"type": "string", "enum": list(orderings)})
            )
        return parameters

    def _limit(self, params: Mapping[str, str]) -> int:
        text = params.get(LIMIT, str(self.default_limit))
        if not _LIMIT.fullmatch(text) or not 1 <= int(text) <= self.max_limit:
            raise Invalid(f"It is a whole number from 1 to {self.max_limit}.", pointer=f"/{LIMIT}")
        return int(text)

    @staticmethod
    def _wants_count(params: Mapping[str, str]) -> bool:
        if params.get(COUNT, "exact") != "exact":
            raise Invalid("It can only be “exact”.", pointer=f"/{COUNT}")
        return COUNT in params

    @staticmethod
    def _ordering(params: Mapping[str, str], view: Any, queryset: QuerySet[Any]) -> list[tuple[str, bool]]:
        """Return the columns to sort by, each with whether it descends; the last one is unique."""
        orderings = getattr(view, "orderings", None)
        if orderings and ORDERING in params:
            if params[ORDERING] not in orderings:
                raise Invalid(f"It is one of: {', '.join(orderings)}.", pointer=f"/{ORDERING}")
            names = orderings[params[ORDERING]]
        else:
            names = view.keyset_ordering
        ordering = [(name.removeprefix("-"), name.startswith("-")) for name in names]
        if ordering[-1][0] not in {"pk", queryset.model._meta.pk.name, *getattr(view, "unique_keys", ())}:
            ordering.append(("pk", ordering[-1][1]))
        return ordering

    def _link(self, cursor: Cursor | None) -> str | None:
        if cursor is None:
            return None
        if cursor == Cursor():
            return remove_query_param(self._url, CURSOR)
        return replace_query_param(self._url, CURSOR, cursor.encode(of=self._list))


def _behind(walk: Sequence[tuple[str, bool]], key: Sequence[Any], fields: Sequence[Field]) -> Any:
    """Match the rows that come after a key."""
    names = [name for name, _ in walk]
    if len(names) > 1 and len({is_descending for _, is_descending in walk}) == 1:
        return _RowComparison(names, key, fields, operator="<" if walk[0][1] else ">")
    return _behind_by_parts(walk, key)


def _behind_by_parts(walk: Sequence[tuple[str, bool]], key: Sequence[Any]) -> Q:
    """Match them where some columns ascend and others descend.

    The bound on the first column says nothing new, but lets a database enter its index there:
    ``a <= x AND (a < x OR (a = x AND pk > y))``.
    """
    (name, is_descending), value = walk[0], key[0]
    comparison = "lt" if is_descending else "gt"
    beyond = Q(**{f"{name}__{comparison}": value})
    if len(walk) == 1:
        return beyond
    bound = Q(**{f"{name}__{comparison}e": value})
    return bound & (beyond | (Q(**{name: value}) & _behind_by_parts(walk[1:], key[1:])))


class _RowComparison(Func):
    """``(a, pk) < (x, y)``: what both databases look up in one step, also where a million rows share one ``a``."""

    output_field = BooleanField()

    def __init__(
        self, names: Sequence[str], key: Sequence[Any], fields: Sequence[Field], *, operator: str
    ) -> None:
        values = [Value(value, output_field=field) for value, field in zip(key, fields, strict=True)]
        super().__init__(*map(F, names), *values)
        self.operator = operator

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, tuple[Any, ...]]:
        parts = [compiler.compile(expression) for expression in self.source_expressions]
        sql = [sql for sql, _ in parts]
        middle = len(sql) // 2
        left, right = ", ".join(sql[:middle]), ", ".join(sql[middle:])
        return f"({left}) {self.operator} ({right})", tuple(value for _, params in parts for value in params)


def _field(queryset: QuerySet[Any], name: str) -> Field:
    """Return the field that knows how to read a value of a column or annotation."""
    if name in queryset.query.annotations:
        return queryset.query.annotations[name].output_field
    meta = queryset.model._meta
    return meta.pk if name == "pk" else meta.get_field(name)


def _fingerprint(request: Request, ordering: Sequence[tuple[str, bool]]) -> str:
    """Name a list: its path, its filters and its order."""
    filters = sorted(
        (name, values) for name, values in request.query_params.lists() if name not in {LIMIT, CURSOR, COUNT}
    )
    text = json.dumps([request.path, filters, ordering])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_json(value: Any) -> Any:
    if value is None:
        raise ValueError("A list cannot be kept in order by a column that holds nulls.")
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _from_json(field: Field, value: Any) -> Any:
    if value is None:
        raise ValueError("No key contains a null.")
    return field.to_python(value)
