"""Images in the admin: find them, say what they are, put them into albums, throw them away."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat, truncatechars
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join

from albums import links, services
from albums.admin.choosing import PutIntoAlbumForm, album_field, ask, is_confirmed
from albums.admin.filters import AlbumFilter, RatingFilter, TrashFilter
from albums.admin.label_edits import ask_and_edit
from albums.admin.labels import MOST_LABELS, LabelInline, save_labels
from albums.admin.refusals import RefusalsMixin
from albums.models import Image, ImageQuerySet, Label, Visibility
from albums.thumbnails import smallest_size
from albums.words import SearchTooLong
from imagehub.admin_lists import LongListAdmin
from imagehub.config import get_config
from imagehub.errors import Invalid

MOST_AT_ONCE = 1000
"""Images that one action changes. It is done while somebody waits."""

EDITABLE = ["name", "prompt", "negative_prompt", "visibility", "nsfw", "starred", "rating"]
OF_TRASH = ("restore", "purge")


class UploadForm(forms.Form):
    """What the upload page asks. A script sends it to the API, whose limits and answers are the same for everybody."""

    album = album_field("Album", required=False, help_text="Where they go, besides the library.")
    visibility = forms.ChoiceField(choices=Visibility, initial=Visibility.PRIVATE)


@admin.register(Image)
class ImageAdmin(RefusalsMixin, LongListAdmin):
    """Find images, say what they are, and sort them. They are made by uploads and jobs."""

    list_display = ["picture", "title", "made_with", "size", "state", "stars", "came"]
    list_display_links = ["picture", "title"]
    list_filter = [
        TrashFilter, "visibility", "nsfw", "starred", RatingFilter, "source_kind", AlbumFilter,
    ]  # fmt: skip
    sortable_by = ["size", "stars", "came"]  # what an index has in order
    search_fields = ["prompt", "name"]
    search_help_text = "Words of the name, the prompt, captions and tags."
    ordering = ["-created_at", "-id"]
    actions = [
        "make_public", "make_private", "mark_safe", "mark_flagged", "star", "unstar", "put_into_album",
        "edit_labels", "trash", "restore", "purge",
    ]  # fmt: skip
    formfield_overrides = {models.TextField: {"widget": AdminTextareaWidget(attrs={"rows": 3})}}
    inlines = [LabelInline]
    change_list_template = "admin/albums/image/change_list.html"
    change_form_template = "admin/albums/image/change_form.html"

    class Media:
        css = {"all": ["albums/admin.css"]}

    @admin.display(description="Image")
    def picture(self, image: Image) -> str:
        kind = "flagged" if image.nsfw == Image.Nsfw.FLAGGED else ""
        return format_html(
            '<span class="thumb {}"><img src="{}" alt="" loading="lazy"></span>',
            kind,
            links.thumbnail_url(image.pk, smallest_size()),
        )

    @admin.display(description="Picture")
    def large_picture(self, image: Image) -> str:
        return format_html(
            '<a class="large" href="{}"><img src="{}" alt="" width="{}" height="{}"></a>',
            links.page_url(image.pk),
            links.thumbnail_url(image.pk, max(get_config().storage.thumbnail_sizes)),
            image.width,
            image.height,
        )

    @admin.display(description="Prompt")
    def title(self, image: Image) -> str:
        return truncatechars(image.prompt or image.name, 100)

    @admin.display(description="Model and seed")
    def made_with(self, image: Image) -> str:
        seed = "" if image.seed is None else str(image.seed)
        return format_html_join("", "<div>{}</div>", ((part,) for part in (image.base_model, seed) if part))

    @admin.display(description="Seen by")
    def state(self, image: Image) -> str:
        whom = {Visibility.PUBLIC: "everybody", Visibility.PRIVATE: "staff"}[Visibility(image.visibility)]
        nsfw = "" if image.nsfw == Image.Nsfw.UNKNOWN else image.get_nsfw_display().lower()
        return format_html_join("", "<div>{}</div>", ((part,) for part in (whom, nsfw) if part))

    @admin.display(ordering="size_bytes")
    def size(self, image: Image) -> str:
        sides = f"{image.width} \N{MULTIPLICATION SIGN} {image.height}"
        return format_html_join(
            "", "<div>{}</div>", ((part,) for part in (sides, filesizeformat(image.size_bytes)))
        )

    @admin.display(description="Since", ordering="created_at")
    def came(self, image: Image) -> str:
        owner = image.owner.get_username() if image.owner else ""
        parts = (f"{image.created_at:%Y-%m-%d}", owner)
        return format_html_join("", "<div>{}</div>", ((part,) for part in parts if part))

    @admin.display(description="Rating", ordering="rating")
    def stars(self, image: Image) -> str:
        star = "\N{BLACK HEART SUIT} " if image.starred else ""
        return star + "\N{BLACK STAR}" * image.rating

    @admin.display(description="Albums")
    def in_albums(self, image: Image) -> str:
        albums = image.albums.order_by("name", "pk")[:50]
        return format_html_join(
            ", ",
            '<a href="{}">{}</a>',
            ((reverse("admin:albums_album_change", args=[album.pk]), album.name) for album in albums),
        )

    # ---- Who may do what ----

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Image | None = None) -> bool:
        """What is in the trash has to be restored first."""
        return not (obj and obj.deleted_at) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Image | None = None) -> bool:
        return False

    # ---- The list ----

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Image], search_term: str
    ) -> tuple[QuerySet[Image], bool]:
        """Search as the API does, what came in last first."""
        if not search_term.strip():
            return queryset, False
        try:
            return queryset.search(search_term).order_by("-arrival"), False
        except SearchTooLong as error:
            self.message_user(request, str(error), messages.ERROR)
            return queryset.none(), False

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        is_trash = request.GET.get(TrashFilter.parameter_name) == TrashFilter.IN_TRASH
        actions = super().get_actions(request).items()
        return {name: action for name, action in actions if (name in OF_TRASH) == is_trash}

    # ---- Actions ----

    @admin.action(description="Make public", permissions=["change"])
    def make_public(self, request: HttpRequest, images: ImageQuerySet) -> None:
        self._update(request, images, "public", visibility=Visibility.PUBLIC)

    @admin.action(description="Make private", permissions=["change"])
    def make_private(self, request: HttpRequest, images: ImageQuerySet) -> None:
        self._update(request, images, "private", visibility=Visibility.PRIVATE)

    @admin.action(description="Mark as safe", permissions=["change"])
    def mark_safe(self, request: HttpRequest, images: ImageQuerySet) -> None:
        self._update(request, images, "marked as safe", nsfw=Image.Nsfw.SAFE)

    @admin.action(description="Flag as not fit for everybody", permissions=["change"])
    def mark_flagged(self, request: HttpRequest, images: ImageQuerySet) -> None:
        self._update(request, images, "flagged", nsfw=Image.Nsfw.FLAGGED)

    @admin.action(description="Star", permissions=["change"])
    def star(self, request: HttpRequest, images: ImageQuerySet) -> None:
        self._update(request, images, "starred", starred=True)

    @admin.action(description="Take the star away", permissions=["change"])
    def unstar(self, request: HttpRequest, images: ImageQuerySet) -> None:
        self._update(request, images, "without a star", starred=False)

    @admin.action(description="Put into an album, or move there", permissions=["change"])
    def put_into_album(self, request: HttpRequest, images: ImageQuerySet) -> HttpResponse | None:
        rows = self._selected(images)
        form = PutIntoAlbumForm(request.POST if is_confirmed(request) else None)
        if not form.is_valid():
            return ask(self, request, rows, title="Put images into an album", form=form)
        album, out_of = form.cleaned_data["album"], form.cleaned_data["out_of"]
        # The list shows the last one first; an album begins with what is oldest.
        rows.sort(key=lambda row: (row.created_at, row.pk))
        if out_of and out_of != album:
            new = services.transfer_images(rows, out_of=out_of, album=album)
        else:
            new = services.add_images_to_album(album, rows)
        self.message_user(request, f"{new} of {len(rows)} images are new in “{album}”.", messages.SUCCESS)
        return None

    @admin.action(description="Edit captions or tags", permissions=["change"])
    def edit_labels(self, request: HttpRequest, images: ImageQuerySet) -> HttpResponse | None:
        rows = self._selected(images)
        return ask_and_edit(self, request, rows, [row.pk for row in rows])

    @admin.action(description="Move to the trash", permissions=["change"])
    def trash(self, request: HttpRequest, images: ImageQuerySet) -> None:
        count = services.trash_images(self._ids(images))
        self.message_user(request, f"{_images(count)} in the trash now.", messages.SUCCESS)

    @admin.action(description="Restore from the trash", permissions=["change"])
    def restore(self, request: HttpRequest, images: ImageQuerySet) -> None:
        count = services.restore_images(self._ids(images))
        self.message_user(request, f"{_images(count)} restored.", messages.SUCCESS)

    @admin.action(description="Delete for good", permissions=["change"])
    def purge(self, request: HttpRequest, images: ImageQuerySet) -> HttpResponse | None:
        rows = self._selected(images)
        if not is_confirmed(request):
            warning = "They and their files are deleted for good. Nothing brings them back."
            return ask(self, request, rows, title="Delete images for good", warning=warning)
        count = services.purge_images([row.pk for row in rows])
        self.message_user(request, f"{_images(count)} deleted for good.", messages.SUCCESS)
        return None

    def _update(self, request: HttpRequest, images: ImageQuerySet, outcome: str, **values: Any) -> None:
        count = services.update_images(self._ids(images), **values)
        self.message_user(request, f"{_images(count)} {outcome} now.", messages.SUCCESS)

    def _ids(self, images: ImageQuerySet) -> list[Any]:
        return [row.pk for row in self._selected(images)]

    def _selected(self, images: ImageQuerySet) -> list[Image]:
        """Return what was selected.

        Raises:
            TooManySelected: somebody selected all of a long list.
        """
        rows = list(images[: MOST_AT_ONCE + 1])
        if len(rows) > MOST_AT_ONCE:
            raise TooManySelected(f"One action changes at most {MOST_AT_ONCE} images.", pointer="/action")
        return rows

    # ---- One image ----

    def get_fieldsets(self, request: HttpRequest, obj: Image | None = None) -> Any:
        own = {*EDITABLE, "placeholder", "owner", "created_at", "deleted_at", "original_name"}
        facts = [field.name for field in self.opts.concrete_fields if field.name not in own]
        return [
            (None, {"fields": ["large_picture", *EDITABLE, "in_albums"]}),
            ("Where it comes from", {"fields": ["owner", "original_name", "created_at", "deleted_at"]}),
            ("What it is, and how it was made", {"fields": facts}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Image | None = None) -> list[str]:
        shown = [field.name for field in self.opts.concrete_fields if field.name not in EDITABLE]
        return ["large_picture", "in_albums", *shown]

    def get_inlines(self, request: HttpRequest, obj: Image | None) -> list[type[LabelInline]]:
        return self.inlines if obj and obj.labels.count() <= MOST_LABELS else []

    def get_queryset(self, request: HttpRequest) -> QuerySet[Image]:
        return super().get_queryset(request).select_related("owner")

    def save_model(self, request: HttpRequest, obj: Image, form: Any, change: bool) -> None:  # noqa: FBT001
        if changes := {name: form.cleaned_data[name] for name in form.changed_data}:
            services.update_image(obj, **changes)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:  # noqa: FBT001
        if formset.model is Label:
            save_labels(formset, image=form.instance, user=request.user)
        else:
            super().save_formset(request, form, formset, change)

    def response_change(self, request: HttpRequest, obj: Image) -> HttpResponse:
        if "_trash" not in request.POST:
            return super().response_change(request, obj)
        services.trash_images([obj.pk])
        self.message_user(request, f"“{obj}” is in the trash now.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:albums_image_changelist"))

    # ---- Upload ----

    def get_urls(self) -> list[URLPattern]:
        upload = path("upload/", self.admin_site.admin_view(self.upload), name="albums_image_upload")
        return [upload, *super().get_urls()]

    def upload(self, request: HttpRequest) -> TemplateResponse:
        """Show the page that uploads pictures."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        limits = get_config().uploads
        form = UploadForm()
        context = self.admin_site.each_context(request) | {
            "title": "Upload images",
            "opts": self.opts,
            "form": form,
            "limits": limits,
            "media": self.media + form.media,
        }
        return TemplateResponse(request, "admin/albums/image/upload.html", context)


class TooManySelected(Invalid):
    code = "too_many_selected"


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count} images are"
