"""Filters of the lists in the admin: none of them reads a table to find out what it may offer."""

import uuid
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from albums.models import HIGHEST_RATING, Album, ImageQuerySet


class TrashFilter(admin.SimpleListFilter):
    """What is in the trash is listed alone, and only when somebody asks for it."""

    title = "trash"
    parameter_name = "trash"
    IN_TRASH = "yes"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(self.IN_TRASH, "In the trash")]

    def choices(self, changelist: Any) -> Any:
        first, *others = super().choices(changelist)
        return [first | {"display": "Not in the trash"}, *others]

    def queryset(self, request: HttpRequest, queryset: ImageQuerySet) -> ImageQuerySet:
        return queryset.in_trash() if self.value() == self.IN_TRASH else queryset.live()


class RatingFilter(admin.SimpleListFilter):
    title = "rating"
    parameter_name = "rating"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(rating), "\N{BLACK STAR}" * rating) for rating in range(HIGHEST_RATING, 0, -1)]

    def queryset(self, request: HttpRequest, queryset: ImageQuerySet) -> ImageQuerySet:
        value = self.value() or ""
        return queryset.filter(rating=int(value)) if value.isdecimal() and len(value) == 1 else queryset


class AlbumFilter(admin.SimpleListFilter):
    """The images of one album. The album's own page leads here, and so does the choice of its cover."""

    title = "album"
    parameter_name = "album"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        pk = self._album_id()
        album = Album.objects.filter(pk=pk).first() if pk else None
        return [(str(pk), album.name if album else "unknown")] if pk else []

    def queryset(self, request: HttpRequest, queryset: ImageQuerySet) -> ImageQuerySet:
        pk = self._album_id()
        return queryset.filter(memberships__album=pk) if pk else queryset

    def _album_id(self) -> uuid.UUID | None:
        try:
            return uuid.UUID(str(self.value()))
        except ValueError:
            return None
