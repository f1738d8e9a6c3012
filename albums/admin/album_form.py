"""The form of an album, and what is made of its set template."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.utils.html import format_html, format_html_join

from albums.models import Album, Image
from albums.set_templates import render_set, validate_set_template
from albums.set_templates.csv_rows import read_rows
from imagehub.errors import ImageHubError, Invalid

PROMPTS_SHOWN = 100


class CoverWidget(ForeignKeyRawIdWidget):
    """Leads to the images of one album."""

    def __init__(self, album: Album) -> None:
        super().__init__(Album._meta.get_field("cover").remote_field, admin.site)
        self.album = album

    def base_url_parameters(self) -> dict[str, str]:
        return {"album": str(self.album.pk)}


class AlbumForm(forms.ModelForm):
    rows_file = forms.FileField(
        required=False,
        label="Rows from a CSV file",
        help_text="UTF-8; the first line names the columns. It replaces the rows above.",
    )

    class Meta:
        model = Album
        fields = ["name", "kind", "visibility", "cover"]  # the admin names the rest

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "cover" in self.fields:
            self.fields["cover"].widget = CoverWidget(self.instance)
            self.fields[
                "cover"
            ].help_text = "One of its own images. Without one, the first stands for the album."

    def clean_cover(self) -> Image | None:
        """Let only an image of the album stand for it: another one might be private."""
        cover = self.cleaned_data["cover"]
        if cover and not self.instance.memberships.filter(image=cover, image__deleted_at=None).exists():
            raise forms.ValidationError("The image is not in this album.", code="not_in_album")
        return cover

    def clean(self) -> dict[str, Any]:
        """Take the rows from the file, if there is one."""
        cleaned = super().clean() or {}
        if file := cleaned.get("rows_file"):
            try:
                cleaned["set_rows"] = read_rows(file.read())
            except Invalid as error:
                self._tell(error, instead="rows_file")
            else:
                self.errors.pop("set_rows", None)
        return cleaned

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if self.errors or not self.instance.is_set_template:
            return
        try:
            validate_set_template(self.instance)
        except Invalid as error:
            self._tell(error)

    def _tell(self, error: Invalid, *, instead: str = "") -> None:
        """Put each fault beside its field, with the row and column that it is about."""
        for fault in error.faults:
            field, _, rest = fault.pointer.lstrip("/").partition("/")
            row, _, column = rest.partition("/")
            where = f"Row {int(row) + 1}{f', {column}' if column else ''}: " if row.isdecimal() else ""
            name = instead or field
            self.add_error(name if name in self.fields else None, where + fault.detail)


def rendered_prompts(album: Album) -> str:
    """Return the prompts that a set makes, with its example theme, or why it makes none."""
    if not album.is_set_template:
        return "Only a set template has prompts."
    try:
        items = render_set(album)
    except ImageHubError as error:
        return str(error)
    shown = format_html_join(
        "", "<li><strong>{}</strong> {}</li>", ((item.name, item.prompt) for item in items[:PROMPTS_SHOWN])
    )
    rest = len(items) - PROMPTS_SHOWN
    return format_html('<ol class="prompts">{}</ol>{}', shown, f"and {rest} more" if rest > 0 else "")
