from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import django_filters
from django import forms
from django.db.models import QuerySet
from django_filters.fields import IsoDateTimeField
from django_filters.filterset import BaseFilterSet
from django_filters.rest_framework import DjangoFilterBackend
from django_filters.utils import translate_validation
from django_filters.widgets import SuffixedMultiWidget
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.settings import api_settings


class StrictFilterBackend(DjangoFilterBackend):
    """Filters a list by the view's ``filterset_class``, and refuses query parameters that mean nothing.

    A misspelt filter that was ignored would answer with everything. Single objects are found by their id
    alone, so their requests are left as they are.
    """

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        if getattr(view, "detail", None):
            return queryset
        filterset = self.get_filterset(request, queryset, view)
        of_pages = getattr(getattr(view, "paginator", None), "get_query_params", None)
        refuse_unknown_parameters(
            request,
            known={
                *(() if filterset is None else _names(filterset)),
                *(of_pages(view) if of_pages else ()),
            },
        )
        if filterset is None:
            return queryset
        if not filterset.is_valid():
            raise translate_validation(filterset.errors)
        return filterset.qs


class AskedFilterSet(django_filters.FilterSet):
    """A set of many filters that makes only those that a request asks for.

    Each is copied for every request, with its form field: two dozen of them cost more than the rows of a page.
    """

    def __init__(self, data: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> None:
        asked = {} if data is None else data
        self.base_filters = {
            name: filter_ for name, filter_ in type(self).base_filters.items() if name in asked
        }
        super().__init__(data, *args, **kwargs)


class TimeField(IsoDateTimeField):
    """A time, in UTC: the first hours of the year 1 and the last of 9999 cannot be told there from everywhere."""

    def to_python(self, value: str | None) -> datetime | None:
        time = super().to_python(value)
        try:
            return time and time.astimezone(UTC)
        except OverflowError as error:
            raise forms.ValidationError("This time is out of range.", code="invalid") from error


class TimeFilter(django_filters.IsoDateTimeFilter):
    """Compares with a time (ISO 8601)."""

    field_class = TimeField


def refuse_unknown_parameters(request: Request, *, known: Iterable[str]) -> None:
    """Refuse every query parameter but these and the one that names a format.

    Raises:
        ValidationError: there is one, and it is named.
    """
    accepted = {*known, api_settings.URL_FORMAT_OVERRIDE}
    message = ErrorDetail("There is no such query parameter.", code="unknown_parameter")
    if unknown := {name: [message] for name in request.query_params if name not in accepted}:
        raise ValidationError(unknown)


def _names(filterset: BaseFilterSet) -> Iterable[str]:
    for name, field in filterset.form.fields.items():
        if isinstance(field.widget, SuffixedMultiWidget):  # a range has one parameter for each end
            yield from (field.widget.suffixed(name, suffix) for suffix in field.widget.suffixes)
        else:
            yield name
