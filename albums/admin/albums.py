"""Albums in the admin: what they are called, who sees them, their order, and the sets that some of them describe."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextareaWidget
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from albums import links, services
from albums.admin.album_form import AlbumForm, rendered_prompts
from albums.admin.choosing import MergeForm, ask, is_confirmed
from albums.admin.label_edits import ask_and_edit
from albums.admin.memberships import MOST_INLINE_IMAGES, MembershipInline, save_places
from albums.admin.refusals import RefusalsMixin
from albums.models import Album, AlbumImage, AlbumQuerySet, Visibility
from albums.thumbnails import smallest_size
from imagehub.admin_lists import LongListAdmin

SET_FIELDS = [
    "is_set_template", "set_rows", "rows_file", "base_prompt", "prompt_template", "style_suffix", "example_theme",
    "negative_prompt", ("width", "height"), "loras",
]  # fmt: skip


@admin.register(Album)
class AlbumAdmin(RefusalsMixin, LongListAdmin):
    """Name albums, say who may see them, put their images in order, and describe sets."""

    form = AlbumForm
    formfield_overrides = {models.TextField: {"widget": AdminTextareaWidget(attrs={"rows": 3})}}
    list_display = [
        "picture",
        "name",
        "kind",
        "visibility",
        "is_set_template",
        "image_count",
        "owner",
        "created_at",
    ]
    list_display_links = ["picture", "name"]
    list_filter = ["kind", "visibility", "is_set_template"]
    list_select_related = ["owner"]
    search_fields = ["name", "description"]
    ordering = ["-created_at", "-id"]
    actions = ["make_public", "make_private", "edit_labels", "merge"]
    readonly_fields = ["owner", "created_at", "updated_at", "prompts", "all_images"]
    change_form_template = "admin/albums/album/change_form.html"

    class Media:
        css = {"all": ["albums/admin.css"]}

    @admin.display(description="")
    def picture(self, album: Album) -> str:
        # The column of the list names the first image, so that no row asks for it.
        first = album.cover_id or next(iter(album.preview_ids), None)
        if first is None:
            return "\N{EM DASH}"
        size = smallest_size()
        return format_html(
            '<span class="thumb"><img src="{}" alt="" loading="lazy"></span>',
            links.thumbnail_url(first, size),
        )

    @admin.display(description="Images", ordering="total_images")
    def image_count(self, album: Album) -> str:
        return format_html('<a href="{}">{}</a>', reverse("album", args=[album.pk]), album.total_images)

    @admin.display(description="Images")
    def all_images(self, album: Album) -> str:
        address = f"{reverse('admin:albums_image_changelist')}?album={album.pk}"
        hint = (
            f" There are more than {MOST_INLINE_IMAGES}: their order is changed by programs."
            if album.total_images > MOST_INLINE_IMAGES
            else ""
        )
        return format_html('<a href="{}">{} in the list of images</a>{}', address, album.total_images, hint)

    @admin.display(description="The prompts of the set")
    def prompts(self, album: Album) -> str:
        return rendered_prompts(album)

    def get_fieldsets(self, request: HttpRequest, obj: Album | None = None) -> Any:
        about = ["name", "description", "kind", "visibility"]
        if obj is None:  # an album without images has none to stand for it
            return [
                (None, {"fields": about}),
                ("Set template", {"fields": SET_FIELDS, "classes": ["collapse"]}),
            ]
        is_open = [] if obj.is_set_template else ["collapse"]
        return [
            (None, {"fields": [*about, "cover", "all_images", "owner", ("created_at", "updated_at")]}),
            ("Set template", {"fields": [*SET_FIELDS, "prompts"], "classes": is_open}),
        ]

    def get_inlines(self, request: HttpRequest, obj: Album | None) -> list[type[MembershipInline]]:
        return [MembershipInline] if obj and obj.total_images <= MOST_INLINE_IMAGES else []

    # ---- Writing ----

    def save_model(self, request: HttpRequest, obj: Album, form: Any, change: bool) -> None:  # noqa: FBT001
        if not change:
            obj.owner = request.user
            services.create_album(obj)
            return
        changed = set(form.changed_data) | ({"set_rows"} if form.cleaned_data.get("rows_file") else set())
        names = {field.name for field in self.opts.concrete_fields}
        if changes := {name: form.cleaned_data[name] for name in changed & names}:
            services.update_album(obj, **changes)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:  # noqa: FBT001
        if formset.model is AlbumImage:
            save_places(formset, album=form.instance)
        else:
            super().save_formset(request, form, formset, change)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Say what is deleted without collecting the places of a hundred thousand images."""
        albums = list(objs)
        count = {"albums": len(albums), "places of images": sum(album.total_images for album in albums)}
        return [f"Album: {album}" for album in albums], count, set(), []

    def delete_model(self, request: HttpRequest, obj: Album) -> None:
        services.delete_album(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Album]) -> None:
        for album in queryset.order_by("pk"):  # the order in which everybody locks albums
            services.delete_album(album)

    # ---- Actions ----

    @admin.action(description="Make public", permissions=["change"])
    def make_public(self, request: HttpRequest, albums: AlbumQuerySet) -> None:
        self._show_to(request, albums, Visibility.PUBLIC)

    @admin.action(description="Make private", permissions=["change"])
    def make_private(self, request: HttpRequest, albums: AlbumQuerySet) -> None:
        self._show_to(request, albums, Visibility.PRIVATE)

    @admin.action(description="Edit captions or tags of their images", permissions=["change"])
    def edit_labels(self, request: HttpRequest, albums: AlbumQuerySet) -> HttpResponse | None:
        rows = list(albums)
        places = AlbumImage.objects.filter(album__in=rows)
        return ask_and_edit(self, request, rows, list(places.values_list("image_id", flat=True)))

    @admin.action(description="Merge into another album", permissions=["change"])
    def merge(self, request: HttpRequest, albums: AlbumQuerySet) -> HttpResponse | None:
        rows = list(albums)
        form = MergeForm(request.POST if is_confirmed(request) else None)
        if not form.is_valid():
            warning = "The albums that are merged into another one are deleted. No image is lost."
            return ask(self, request, rows, title="Merge albums", form=form, warning=warning)
        album = form.cleaned_data["album"]
        moved = services.merge_albums(album, [row for row in rows if row.pk != album.pk])
        self.message_user(request, f"{moved} images came into “{album}”.", messages.SUCCESS)
        return None

    def _show_to(self, request: HttpRequest, albums: AlbumQuerySet, visibility: Visibility) -> None:
        rows = list(albums.order_by("pk"))  # the order in which everybody locks albums
        for album in rows:
            services.update_album(album, visibility=visibility)
        what = "1 album is" if len(rows) == 1 else f"{len(rows)} albums are"
        self.message_user(request, f"{what} {visibility} now.", messages.SUCCESS)
