"""Edits of the captions and tags of many images: asked for on the lists of images and albums, and taken back here."""

import uuid
from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from albums import services
from albums.admin.choosing import ask, is_confirmed
from albums.admin.refusals import RefusalsMixin
from albums.models import LabelEdit
from albums.models.labels import LONGEST_CAPTION
from albums.services.label_edits import Preview
from imagehub.admin_lists import LongListAdmin
from imagehub.errors import Invalid

TITLE = "Edit captions or tags"


class LabelEditForm(forms.Form):
    """Which edit. ``action`` is the name of a field that Django's admin has."""

    edit = forms.ChoiceField(label="What to do", choices=LabelEdit.Action)
    text = forms.CharField(
        max_length=LONGEST_CAPTION, strip=False, help_text="With the spaces that it is to have."
    )
    replacement = forms.CharField(
        max_length=LONGEST_CAPTION, strip=False, required=False, help_text="Of “Replace in captions”."
    )
    preview = forms.BooleanField(
        label="Only show what it would do", required=False, help_text="Then nothing is changed yet."
    )

    def clean(self) -> dict[str, Any]:
        """Check what is asked for as the service will."""
        cleaned = super().clean() or {}
        if {"edit", "text"} <= cleaned.keys():
            try:
                replacement = cleaned.get("replacement", "")
                self.change = services.LabelChange(cleaned["edit"], cleaned["text"], replacement)
            except Invalid as error:
                name = error.pointer.removeprefix("/")
                self.add_error(name if name in self.fields else "edit", str(error))
        return cleaned


def ask_and_edit(
    model_admin: admin.ModelAdmin, request: HttpRequest, rows: Sequence[Any], image_ids: Sequence[uuid.UUID]
) -> HttpResponse | None:
    """Ask how the labels of images are to be edited, show that or do it. For actions of lists."""
    form = LabelEditForm(request.POST if is_confirmed(request) else None, initial={"preview": True})
    if not form.is_valid():
        return ask(model_admin, request, rows, title=TITLE, form=form)
    if form.cleaned_data["preview"]:
        found = services.preview_edit(image_ids, form.change)
        return ask(model_admin, request, rows, title=TITLE, form=form, warning=_told(found))
    edit, done = services.edit_labels(image_ids, form.change, user=request.user)
    where = reverse("admin:albums_labeledit_change", args=[edit.pk])
    told = format_html('{} It can be <a href="{}">taken back</a>.', _told(done, is_done=True), where)
    model_admin.message_user(request, told, messages.SUCCESS)
    return None


@admin.register(LabelEdit)
class LabelEditAdmin(RefusalsMixin, LongListAdmin):
    """See which edits there were, and take them back."""

    list_display = ["action", "text", "replacement", "changed", "images", "owner", "created_at", "undone_at"]
    list_filter = ["action"]
    list_select_related = ["owner", "undone_by"]
    ordering = ["-created_at", "-id"]
    actions = ["undo"]

    @admin.action(description="Take back", permissions=["change"])
    def undo(self, request: HttpRequest, edits: QuerySet[LabelEdit]) -> None:
        for edit in edits:  # the latest first, as the list shows them
            undone = services.undo_edit(edit, user=request.user)
            text = f"{undone.restored} labels are as they were"
            kept = f", and {undone.kept} that were changed since stay as they are" if undone.kept else ""
            self.message_user(request, f"{text}{kept}.", messages.SUCCESS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[LabelEdit]:
        return super().get_queryset(request).defer("made")  # up to 10,000 ids in a row

    def get_readonly_fields(self, request: HttpRequest, obj: LabelEdit | None = None) -> list[str]:
        return [field.name for field in self.opts.concrete_fields if field.name != "made"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: LabelEdit | None = None) -> bool:
        return False


def _told(found: Preview, *, is_done: bool = False) -> str:
    """Return a sentence about what an edit does."""
    parts = [f"{found.changed} of {found.images} images {'are' if is_done else 'would be'} changed."]
    words = {"no_caption": "have no caption", "blank": "would say nothing", "max_length": "would be too long"}
    parts += [f"{count} {words[code]}." for code, count in sorted(found.skipped.items())]
    if not is_done:
        parts += [f"“{one.before or ''}” becomes “{one.after or ''}”." for one in found.examples]
    return " ".join(parts)
