"""Images, and the albums that keep them in order.

An image row describes one stored file (:mod:`imagehub.storage`); rows with equal bytes share it. Who may see
a row is decided in one place: ``visible_to``.
"""

import uuid
from typing import TYPE_CHECKING, Any, Self, TypeVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from imagehub.identifiers import new_id

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser


PREVIEW_IDS = ("preview_id_0", "preview_id_1", "preview_id_2", "preview_id_3")
"""What ``with_preview_ids`` adds to each album."""


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


class ImageQuerySet(VisibilityQuerySet["Image"]):
    def in_album(self, album: "Album | uuid.UUID") -> Self:
        """Keep the images of an album, each with its ``position`` there."""
        return self.filter(memberships__album=album).annotate(position=F("memberships__position"))

    def made_by(self, *sources: uuid.UUID) -> Self:
        """Keep the images that these jobs have delivered."""
        return self.filter(source_id__in=sources)


class AlbumQuerySet(VisibilityQuerySet["Album"]):
    def with_image_count(self, user: "AbstractUser | AnonymousUser") -> Self:
        """Add ``image_count``: how many images somebody would see in each album."""
        memberships = AlbumImage.objects.visible_to(user).filter(album=OuterRef("pk"))
        counts = memberships.values("album").annotate(count=Count("pk")).values("count")
        return self.annotate(image_count=Coalesce(Subquery(counts), 0))

    def with_preview_ids(self, user: "AbstractUser | AnonymousUser") -> Self:
        """Add ``preview_id_0`` and so on: the first images that somebody would see in each album.

        Each is read from the start of the album's index, however many images the album has.
        """
        memberships = AlbumImage.objects.visible_to(user).filter(album=OuterRef("pk")).in_order()
        return self.annotate(
            **{
                name: Subquery(
                    memberships.values("image")[number : number + 1], output_field=models.UUIDField()
                )
                for number, name in enumerate(PREVIEW_IDS)
            }
        )


class MembershipQuerySet(models.QuerySet["AlbumImage"]):
    def visible_to(self, user: "AbstractUser | AnonymousUser") -> Self:
        """Keep the places of images that somebody may see; the album is a question of its own."""
        return self if may_see_everything(user) else self.filter(image__visibility=Visibility.PUBLIC)

    def in_order(self) -> Self:
        return self.order_by("position", "image_id")


def validate_loras(value: Any) -> None:
    """Check that an image's adapters are a list of objects; their content is the generator's record."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValidationError("The adapters of an image are a list of objects.")


class Image(models.Model):
    """A picture: its stored file, how it was made, and where it came from."""

    position: int  # in an album; only ``in_album`` adds it

    class Format(models.TextChoices):
        PNG = "png", "PNG"
        JPEG = "jpeg", "JPEG"
        WEBP = "webp", "WebP"

    class SourceKind(models.TextChoices):
        UPLOAD = "upload", "Upload"
        GENERATION = "generation", "Generation"
        SCRAPE = "scrape", "Scrape"
        IMPORT = "import", "Import"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="images"
    )
    name = models.CharField(max_length=200, help_text="What people call it; files are named by content.")
    visibility = models.CharField(max_length=10, choices=Visibility, default=Visibility.PRIVATE)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    storage_name = models.CharField(max_length=200, help_text="Relative to the media root.")
    sha256 = models.CharField("SHA-256", max_length=64)
    size_bytes = models.PositiveBigIntegerField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    format = models.CharField(max_length=4, choices=Format)

    prompt = models.TextField(blank=True)
    negative_prompt = models.TextField(blank=True)
    seed = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    steps = models.PositiveIntegerField(null=True, blank=True)
    guidance_scale = models.FloatField(null=True, blank=True)
    scheduler = models.CharField(max_length=100, blank=True)
    base_model = models.CharField(max_length=200, blank=True, help_text="Name of the base model.")
    loras = models.JSONField(
        "LoRA adapters", default=list, blank=True, validators=[validate_loras], help_text="As they were used."
    )

    source_kind = models.CharField(max_length=10, choices=SourceKind)
    source_id = models.UUIDField(null=True, blank=True, help_text="The job that made or fetched it.")
    source_index = models.PositiveIntegerField(default=0, help_text="Which of the job's pictures it is.")

    objects = ImageQuerySet.as_manager()

    class Meta:
        constraints = [
            # A job that is delivered twice makes no second row. Also serves the filter by source.
            models.UniqueConstraint(
                name="image_once_per_source",
                fields=["source_id", "source_kind", "source_index"],
                condition=Q(source_id__isnull=False),
            ),
            models.CheckConstraint(
                name="image_has_a_size", condition=Q(size_bytes__gt=0, width__gt=0, height__gt=0)
            ),
            models.CheckConstraint(
                name="image_numbers_in_range",
                condition=(Q(seed=None) | Q(seed__gte=0))
                & (Q(steps=None) | Q(steps__gte=1))
                & (Q(guidance_scale=None) | Q(guidance_scale__gte=0)),
            ),
            models.CheckConstraint(
                name="image_visibility_known", condition=Q(visibility__in=["public", "private"])
            ),
            models.CheckConstraint(
                name="image_format_known", condition=Q(format__in=["png", "jpeg", "webp"])
            ),
            models.CheckConstraint(
                name="image_source_known",
                condition=Q(source_kind__in=["upload", "generation", "scrape", "import"]),
            ),
            models.CheckConstraint(name="image_has_a_file", condition=~Q(storage_name="") & ~Q(sha256="")),
        ]
        indexes = [
            # The public list, and the list of staff.
            models.Index(name="image_visible_newest", fields=["visibility", "-created_at", "-id"]),
            models.Index(name="image_newest", fields=["-created_at", "-id"]),
            # Is this blob still in use?
            models.Index(name="image_by_content", fields=["sha256"]),
        ]

    def __str__(self) -> str:
        return self.name


class Album(models.Model):
    """Images that belong together, in an order."""

    image_count: int  # only ``with_image_count`` adds it
    visible_cover: Image | None  # these two are what the API attaches
    preview_images: list[Image]

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
        ]
        indexes = [
            # The public list, and the list of staff.
            models.Index(name="album_visible_newest", fields=["visibility", "-created_at", "-id"]),
            models.Index(name="album_newest", fields=["-created_at", "-id"]),
        ]

    def __str__(self) -> str:
        return self.name


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
