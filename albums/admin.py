from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat, truncatechars
from django.urls import reverse
from django.utils.html import format_html

from albums import links
from albums.models import Album, AlbumImage, Image
from albums.services import create_album

MOST_INLINE_IMAGES = 200


@admin.register(Image)
class ImageAdmin(admin.ModelAdmin):
    """Find images, and see how each was made. They are made by uploads and jobs, never here."""

    list_display = ["picture", "title", "base_model", "seed", "size", "visibility", "owner", "created_at"]
    list_display_links = ["picture", "title"]
    list_filter = ["visibility", "source_kind", "format"]
    list_select_related = ["owner"]
    list_per_page = 50
    search_fields = ["prompt", "name"]
    search_help_text = "Words of the prompt or the name."
    show_full_result_count = False  # counting a million rows is not worth the number
    ordering = ["-created_at", "-id"]

    @admin.display(description="Image")
    def picture(self, image: Image) -> str:
        return format_html('<img src="{}" alt="" width="75" loading="lazy">', links.thumbnail_url(image.pk))

    @admin.display(description="Prompt", ordering="prompt")
    def title(self, image: Image) -> str:
        return truncatechars(image.prompt or image.name, 100)

    @admin.display(ordering="size_bytes")
    def size(self, image: Image) -> str:
        return f"{image.width} \N{MULTIPLICATION SIGN} {image.height}, {filesizeformat(image.size_bytes)}"

    def get_readonly_fields(self, request: HttpRequest, obj: Image | None = None) -> list[str]:
        return ["picture", *(field.name for field in self.opts.concrete_fields)]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Image | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Image | None = None) -> bool:
        return False


class MembershipInline(admin.TabularInline):
    model = AlbumImage
    fields = ["position", "image"]
    raw_id_fields = ["image"]
    ordering = ["position", "image_id"]
    extra = 0


@admin.register(Album)
class AlbumAdmin(admin.ModelAdmin):
    """Name albums, say who may see them, and put their images in order."""

    list_display = ["name", "kind", "visibility", "image_count", "owner", "created_at"]
    list_filter = ["kind", "visibility"]
    list_select_related = ["owner"]
    search_fields = ["name", "description"]
    ordering = ["-created_at", "-id"]
    fields = ["name", "description", "kind", "visibility", "cover", "owner", "created_at", "updated_at"]
    readonly_fields = ["owner", "created_at", "updated_at"]
    raw_id_fields = ["cover"]

    @admin.display(description="Images", ordering="image_count")
    def image_count(self, album: Album) -> str:
        sheet = reverse("album-contact-sheet", args=[album.pk])
        return format_html('<a href="{}">{}</a>', sheet, album.image_count)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Album]:
        return super().get_queryset(request).with_image_count(request.user)

    def get_inlines(self, request: HttpRequest, obj: Album | None) -> list[type[MembershipInline]]:
        # Beyond that a browser sends more fields than Django accepts from a form.
        return [MembershipInline] if obj and obj.image_count <= MOST_INLINE_IMAGES else []

    def save_model(self, request: HttpRequest, obj: Album, form: Any, change: bool) -> None:  # noqa: FBT001
        if change:
            obj.save()
        else:
            obj.owner = request.user
            create_album(obj)
