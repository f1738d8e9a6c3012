"""Pages between an action and its effect: which album, and is that meant?"""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.widgets import AutocompleteSelect
from django.http import HttpRequest
from django.template.response import TemplateResponse

from albums.models import Album, AlbumImage

CONFIRMED = "confirmed"


def album_field(label: str, *, required: bool = True, help_text: str = "") -> forms.ModelChoiceField:
    """Return a field that finds an album by its name."""
    return forms.ModelChoiceField(
        Album.objects.all(),
        label=label,
        required=required,
        help_text=help_text,
        widget=AutocompleteSelect(AlbumImage._meta.get_field("album"), admin.site),
    )


class PutIntoAlbumForm(forms.Form):
    album = album_field("Put them into")
    out_of = album_field(
        "Take them out of", required=False, help_text="Leave it empty to let them stay where else they are."
    )


class MergeForm(forms.Form):
    album = album_field("Merge them into", help_text="It keeps its name; the others are deleted.")


def ask(
    model_admin: admin.ModelAdmin,
    request: HttpRequest,
    rows: Any,
    *,
    title: str,
    form: forms.Form | None = None,
    warning: str = "",
) -> TemplateResponse:
    """Show what was selected, ask what is missing, and send both back to the same action."""
    context = model_admin.admin_site.each_context(request) | {
        "title": title,
        "opts": model_admin.opts,
        "rows": rows,
        "form": form,
        "warning": warning,
        "action": request.POST.get("action", ""),
        "action_checkbox_name": ACTION_CHECKBOX_NAME,
        "confirmed": CONFIRMED,
        "media": model_admin.media + (form.media if form else forms.Media()),
    }
    return TemplateResponse(request, "admin/albums/ask.html", context)


def is_confirmed(request: HttpRequest) -> bool:
    """Tell whether somebody answers the page that :func:`ask` showed."""
    return CONFIRMED in request.POST
