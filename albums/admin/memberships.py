"""The order of an album, on its page."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from albums import links, services
from albums.models import Album, AlbumImage, Image
from albums.thumbnails import smallest_size

MOST_INLINE_IMAGES = 200
"""Beyond that a browser sends more fields than Django accepts from a form."""

LARGEST_POSITION = 2**31 - 1
"""What every database can hold."""


class PictureWidget(forms.Widget):
    """Shows which image a row is about."""

    def __init__(self, image: Image) -> None:
        super().__init__()
        self.image = image

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        return format_html(
            '<a class="thumb {}" href="{}" title="{}"><img src="{}" alt="{}" loading="lazy"></a>',
            "flagged" if self.image.nsfw == Image.Nsfw.FLAGGED else "",
            links.page_url(self.image.pk),
            self.image.name,
            links.thumbnail_url(self.image.pk, smallest_size()),
            self.image.name,
        )


class PictureField(forms.Field):
    """The image of a place that is there already: it stays, so that no row asks the database for it."""

    def __init__(self, image: Image) -> None:
        super().__init__(widget=PictureWidget(image), disabled=True, required=False, label="Image")
        self.image = image

    def clean(self, value: Any) -> Image:
        return self.image


class MembershipForm(forms.ModelForm):
    position = forms.IntegerField(min_value=0, max_value=LARGEST_POSITION)

    class Meta:
        model = AlbumImage
        fields = ["image", "position"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:
            self.fields["image"] = PictureField(self.instance.image)
        else:
            self.fields["image"].queryset = Image.objects.live()

    def _get_validation_exclusions(self) -> set[str]:
        kept = set() if self.instance._state.adding else {"image"}  # that it exists is known
        return super()._get_validation_exclusions() | kept  # type: ignore[misc]

    def validate_unique(self) -> None:
        """Ask the database about new rows only: the others have the image that they had."""
        if self.instance._state.adding:
            super().validate_unique()

    def validate_constraints(self) -> None:
        """Do so here as well."""
        if self.instance._state.adding:
            super().validate_constraints()


class KnownRowField(forms.Field):
    """The id of a row that the formset has read already, and need not ask for again."""

    def __init__(self, row: AlbumImage) -> None:
        super().__init__(widget=forms.HiddenInput, required=False, initial=row.pk)
        self.row = row

    def clean(self, value: Any) -> AlbumImage:
        return self.row

    def has_changed(self, initial: Any, data: Any) -> bool:
        return False


class MembershipFormSet(BaseInlineFormSet):
    def add_fields(self, form: forms.ModelForm, index: int | None) -> None:
        """Let the rows of an album cost one query, and not one each."""
        super().add_fields(form, index)
        if not form.instance._state.adding:
            form.fields["id"] = KnownRowField(form.instance)


class MembershipInline(admin.TabularInline):
    model = AlbumImage
    form = MembershipForm
    formset = MembershipFormSet
    fields = ["image", "position"]
    raw_id_fields = ["image"]
    extra = 0

    class Media:
        js = ["albums/admin_order.js"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[AlbumImage]:
        places = super().get_queryset(request).filter(image__deleted_at=None)
        return places.select_related("image").order_by("position", "image_id")


def save_places(formset: BaseInlineFormSet, *, album: Album) -> None:
    """Write what a form says about the images of an album.

    Raises:
        AlbumGone: somebody deleted it in the meantime.
    """
    formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []
    deleted = formset.deleted_forms
    if gone := [form.instance for form in deleted if not form.instance._state.adding]:
        services.remove_images_from_album(album, [place.image for place in gone])
        formset.deleted_objects += gone
    positions = {}
    for form in formset.initial_forms:
        if form not in deleted and form.has_changed():
            positions[form.instance.image_id] = form.cleaned_data["position"]
            formset.changed_objects.append((form.instance, form.changed_data))
    for form in formset.extra_forms:
        if form not in deleted and form.has_changed():
            services.add_images_to_album(album, [form.cleaned_data["image"]])
            positions[form.cleaned_data["image"].pk] = form.cleaned_data["position"]
            formset.new_objects.append(form.instance)
    if positions:
        services.place_images(album, positions)
