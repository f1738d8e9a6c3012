"""Who may see a row. Everything about visibility asks here."""

from typing import TYPE_CHECKING, Self, TypeVar

from django.db import models

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser


class Visibility(models.TextChoices):
    """Who may see a row. Text, not a boolean, for which SQLite would leave the index unused."""

    PUBLIC = "public", "Public"
    PRIVATE = "private", "Private"


M = TypeVar("M", bound=models.Model)


def may_see_everything(user: "AbstractUser | AnonymousUser") -> bool:
    """Tell whether private rows are shown to somebody. Everything about visibility asks here."""
    return bool(user.is_active and user.is_staff)


class VisibilityQuerySet(models.QuerySet[M]):
    """What albums and images have in common: a visibility and a time of creation."""

    def visible_to(self, user: "AbstractUser | AnonymousUser") -> Self:
        """Keep what somebody may see: staff everything, everybody else public rows."""
        return self if may_see_everything(user) else self.filter(visibility=Visibility.PUBLIC)

    def newest_first(self) -> Self:
        return self.order_by("-created_at", "-id")
