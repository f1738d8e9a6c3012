"""Albums: images in an order. One that carries a set template also says how a whole set is made."""

from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.validators import MaxLengthValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from albums.models.images import Image, validate_loras
from albums.models.set_rows import RowsField
from albums.models.visibility import Visibility, VisibilityQuerySet, may_see_everything
from imagehub.identifiers import new_id

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

PREVIEWS = 4
"""How many of its first images stand for an album."""

LONGEST_SET_PROMPT = 2000


class AlbumQuerySet(VisibilityQuerySet["Album"]):
    def set_templates(self) -> Self:
        return self.filter(is_set_template=True)


class MembershipQuerySet(models.QuerySet["AlbumImage"]):
    def in_order(self) -> Self:
        return self.order_by("position", "image_id")


class Album(models.Model):
    """Images that belong together, in an order.

    The counts and previews are kept by :func:`albums.services.refresh_summaries`, so that a list of albums costs one
    query however many images they hold.
    """

    class Kind(models.TextChoices):
        MANUAL = "manual", "Manual"
        SET = "set", "Set"
        UPLOAD = "upload", "Upload"
        SCRAPE = "scrape", "Scrape"
        GENERATED = "generated", "Generated"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="albums"
    )
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.MANUAL)
    visibility = models.CharField(max_length=10, choices=Visibility, default=Visibility.PRIVATE)
    cover = models.ForeignKey(Image, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    images = models.ManyToManyField(Image, through="AlbumImage", related_name="albums")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    total_images = models.PositiveIntegerField("images", default=0, editable=False)
    public_images = models.PositiveIntegerField(
        default=0, editable=False, help_text="Of them, what everybody sees."
    )
    preview_ids = models.JSONField(default=list, editable=False, help_text="The first images, for staff.")
    public_preview_ids = models.JSONField(default=list, editable=False, help_text="And for everybody.")

    is_set_template = models.BooleanField("set template", default=False)
    set_key = models.CharField(
        "key",
        max_length=100,
        blank=True,
        editable=False,
        help_text="What it is called in the file that it is imported from.",
    )
    set_rows = RowsField(
        "rows", default=list, blank=True, help_text="One object of strings for each picture."
    )
    base_prompt = models.TextField(blank=True, validators=[MaxLengthValidator(LONGEST_SET_PROMPT)])
    prompt_template = models.TextField(
        blank=True,
        validators=[MaxLengthValidator(LONGEST_SET_PROMPT)],
        help_text="With {column} for a cell of the row.",
    )
    style_suffix = models.TextField(blank=True, validators=[MaxLengthValidator(LONGEST_SET_PROMPT)])
    example_theme = models.CharField(max_length=500, blank=True)
    negative_prompt = models.TextField(blank=True, validators=[MaxLengthValidator(LONGEST_SET_PROMPT)])
    width = models.PositiveIntegerField(null=True, blank=True)
    height = models.PositiveIntegerField(null=True, blank=True)
    loras = models.JSONField(
        "LoRA adapters",
        default=list,
        blank=True,
        validators=[validate_loras],
        help_text="Objects with id and weight.",
    )

    objects = AlbumQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="album_visibility_known", condition=Q(visibility__in=["public", "private"])
            ),
            models.CheckConstraint(
                name="album_kind_known",
                condition=Q(kind__in=["manual", "set", "upload", "scrape", "generated"]),
            ),
            # An import that is repeated makes no second album.
            models.UniqueConstraint(
                name="album_once_per_set_key", fields=["set_key"], condition=~Q(set_key="")
            ),
        ]
        indexes = [
            # The public list, and the list of staff.
            models.Index(name="album_visible_newest", fields=["visibility", "-created_at", "-id"]),
            models.Index(name="album_newest", fields=["-created_at", "-id"]),
            models.Index(name="album_visible_by_name", fields=["visibility", "name", "id"]),
            models.Index(name="album_by_name", fields=["name", "id"]),
            models.Index(name="album_by_kind", fields=["kind", "-created_at", "-id"]),
            models.Index(
                name="album_set_templates", fields=["-created_at", "-id"], condition=Q(is_set_template=True)
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def image_count_for(self, user: "AbstractUser | AnonymousUser") -> int:
        """Return how many of the images somebody is shown."""
        return self.total_images if may_see_everything(user) else self.public_images

    def preview_ids_for(self, user: "AbstractUser | AnonymousUser") -> list[Any]:
        """Return the ids of the first images that somebody is shown."""
        return self.preview_ids if may_see_everything(user) else self.public_preview_ids


class AlbumImage(models.Model):
    """The place of one image in one album. Equal positions are told apart by the image."""

    # The unique constraint begins with the album: an index of its own would say nothing new.
    album = models.ForeignKey(Album, on_delete=models.CASCADE, related_name="memberships", db_index=False)
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="memberships")
    position = models.PositiveIntegerField()
    added_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        verbose_name = "membership"
        constraints = [
            models.UniqueConstraint(
                name="album_image_once",
                fields=["album", "image"],
                violation_error_message="The image is in this album already.",
            ),
        ]
        indexes = [
            # An album in its order.
            models.Index(name="album_in_order", fields=["album", "position", "image"]),
        ]

    def __str__(self) -> str:
        return f"{self.album_id}[{self.position}]"
