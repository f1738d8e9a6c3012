from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from imagehub.admin_lists import LongListAdmin
from imagehub.errors import Invalid
from imagehub.operations import (
    disk_admin,  # noqa: F401 - Django looks for admin pages here
    purges,
)
from imagehub.operations.models import Purge


class PurgeForm(forms.ModelForm):
    """Which purge somebody asks for."""

    kind = forms.ChoiceField(help_text="What is deleted.")
    older_than_days = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=purges.MOST_DAYS,
        label="Older than (days)",
        help_text="Of what ended so long ago. Empty: as the configuration says.",
    )
    limit = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=purges.GREATEST_LIMIT,
        help_text="Of so many at most, the oldest first. Empty: all.",
    )
    is_dry_run = forms.BooleanField(
        required=False, initial=True, label="Dry run", help_text="Only say what would be deleted."
    )

    class Meta:
        model = Purge
        fields = ["kind", "older_than_days", "limit", "is_dry_run"]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if "kind" in self.fields:  # not where a row is looked at
            self.fields["kind"].choices = [(kind.name, kind.things) for kind in purges.kinds()]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                purges.days_or_retention(purges.get_kind(cleaned["kind"]), cleaned["older_than_days"])
            except Invalid as error:
                self.add_error("older_than_days", str(error))
        return cleaned

    def _post_clean(self) -> None:
        """Leave the row alone: the service makes it."""


LOOKED_AT = [
    "kind", "origin", "requested_by", "older_than_days", "limit", "is_dry_run", "state", "result", "created_at",
    "worked_at", "finished_at",
]  # fmt: skip


@admin.register(Purge)
class PurgeAdmin(LongListAdmin):
    """What was deleted of old things, and when, and asking for more of it. The rows write themselves."""

    list_display = [
        "created_at", "kind", "origin", "requested_by", "older_than_days", "is_dry_run", "state", "outcome",
    ]  # fmt: skip
    list_filter = ["kind", "origin", "state", "is_dry_run"]
    list_select_related = ["requested_by"]
    ordering = ["-created_at", "-id"]
    form = PurgeForm

    @admin.display(description="Outcome")
    def outcome(self, purge: Purge) -> str:
        return str(purge.result.get("problem") or purges.told(purge) or "\N{EM DASH}")

    def get_fields(self, request: HttpRequest, obj: Purge | None = None) -> list[str]:
        return LOOKED_AT if obj else PurgeForm.Meta.fields

    def save_model(self, request: HttpRequest, obj: Purge, form: PurgeForm, change: Any) -> None:
        asked = form.cleaned_data
        made = purges.request_purge(
            asked["kind"],
            user=request.user,
            older_than_days=asked["older_than_days"],
            limit=asked["limit"],
            is_dry_run=asked["is_dry_run"],
        )
        obj.pk = made.pk
        obj.refresh_from_db()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
