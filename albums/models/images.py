"""Images: what a stored file is, how it was made, and where it came from.

An image row describes one stored file (:mod:`imagehub.storage`); rows with equal bytes share it.
"""

import uuid
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import connections, models
from django.db.models import BigIntegerField, F, Q
from django.db.models.expressions import RawSQL
from django.utils import timezone

from albums.models.visibility import Visibility, VisibilityQuerySet, may_see_everything
from albums.words import Search
from imagehub.identifiers import new_id

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

    from albums.models.albums import Album

HIGHEST_RATING = 5
LONGEST_PROMPT = 20_000


class ImageQuerySet(VisibilityQuerySet["Image"]):
    def live(self) -> Self:
        """Keep what is not in the trash."""
        return self.filter(deleted_at=None)

    def in_trash(self) -> Self:
        """Keep what was deleted and can still be restored."""
        return self.filter(deleted_at__isnull=False)

    def visible_to(self, user: "AbstractUser | AnonymousUser") -> Self:
        """Keep what somebody may see: staff everything, everybody else public rows; nobody what is in the trash."""
        return super().visible_to(user).live()

    def reachable_by(self, user: "AbstractUser | AnonymousUser") -> Self:
        """Keep what somebody may ask for by its id: what they may see, and for staff also what is in the trash."""
        return self if may_see_everything(user) else self.visible_to(user)

    def unflagged(self) -> Self:
        """Leave out what is known to be unfit for everybody's eyes. What nobody has looked at stays."""
        return self.exclude(nsfw=Image.Nsfw.FLAGGED)

    def rated_at_least(self, rating: int) -> Self:
        """Keep the images with this rating or a better one."""
        # Written the other way round, because SQLite would gather them all by the index and then sort them.
        return self.exclude(rating__lt=rating)

    def shown_to(self, user: "AbstractUser | AnonymousUser") -> Self:
        """Keep what somebody is shown unasked: what they may see, but nothing flagged unless they are staff."""
        images = self.visible_to(user)
        return images if may_see_everything(user) else images.unflagged()

    def in_album(self, album: "Album | uuid.UUID") -> Self:
        """Keep the images of an album, each with its ``position`` there.

        ``placed_id`` is their id once more, as the index that keeps an album in order has it.
        """
        return self.filter(memberships__album=album).annotate(
            position=F("memberships__position"), placed_id=F("memberships__image")
        )

    def search(self, search: Search | str, *, by_rows: bool = False) -> Self:
        """Keep the images whose name, prompt, captions or tags hold what is looked for, each with its ``arrival``.

        That is a whole number, larger for what was added later. Ordered by it downwards, a page costs the same
        whether a word stands in one image or in half of a million: both databases walk their index lazily.

        SQLite has to be told where to begin, and does not guess: by the words, unless ``by_rows`` says that other
        filters leave few images, or that most pages of another order will be full of hits.

        Not to be used inside of another query.

        Raises:
            SearchTooLong: nobody types that much.
        """
        if isinstance(search, str):
            search = Search.parse(search)
        is_sqlite = connections[self.db].vendor == "sqlite"
        by_words = is_sqlite and bool(search.wanted)
        tables, params = ["albums_imagetext"], []
        # A plus keeps SQLite from entering an index there.
        hint = "+" if is_sqlite and not by_rows else ""
        where = [f'"albums_image"."id" = {hint}"albums_imagetext"."image_id"']
        if by_words:
            tables.append("albums_imagetext_fts")
            hint = "+" if by_rows else ""
            where += [
                f'"albums_imagetext_fts".rowid = {hint}"albums_imagetext"."id"',
                "albums_imagetext_fts MATCH %s",
            ]
            params.append(
                " AND ".join(f'"{word}"{" *" if is_prefix else ""}' for word, is_prefix in search.wanted)
            )
        elif search.wanted:
            where.append('"albums_imagetext"."vector" @@ %s::tsquery')
            params.append(
                " & ".join(f"'{word}'{':*' if is_prefix else ''}" for word, is_prefix in search.wanted)
            )
        for phrase in search.phrases:
            where.append('"albums_imagetext"."document" LIKE %s')
            params.append(f"%{phrase}%")
        for phrase in search.excluded:
            where.append('"albums_imagetext"."document" NOT LIKE %s')
            params.append(f"%{phrase}%")
        key = '"albums_imagetext_fts".rowid' if by_words and not by_rows else '"albums_imagetext"."id"'
        found = self.extra(tables=tables, where=where, params=params)  # noqa: S610 - nothing but words
        found = found.annotate(arrival=RawSQL(key, [], output_field=BigIntegerField()))  # noqa: S611
        return found if search.terms else found.none()

    def made_by(self, *sources: uuid.UUID) -> Self:
        """Keep the images that these jobs have delivered."""
        return self.filter(source_id__in=sources)


def validate_loras(value: Any) -> None:
    """Check that an image's adapters are a list of objects; their content is the generator's record."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValidationError("The adapters of an image are a list of objects.")


class Image(models.Model):
    """A picture: its stored file, how it was made, and where it came from."""

    position: int  # in an album; only ``in_album`` adds these
    placed_id: uuid.UUID
    arrival: int  # only ``search`` adds it

    class Format(models.TextChoices):
        PNG = "png", "PNG"
        JPEG = "jpeg", "JPEG"
        WEBP = "webp", "WebP"

    class SourceKind(models.TextChoices):
        UPLOAD = "upload", "Upload"
        GENERATION = "generation", "Generation"
        SCRAPE = "scrape", "Scrape"
        IMPORT = "import", "Import"

    class Nsfw(models.TextChoices):
        """Whether a picture is fit for everybody. What nobody has looked at is not safe, only unknown."""

        UNKNOWN = "unknown", "Unknown"
        SAFE = "safe", "Safe"
        FLAGGED = "flagged", "Flagged"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="images",
        db_index=False,  # image_by_owner begins with it
    )
    name = models.CharField(max_length=200, help_text="What people call it; files are named by content.")
    original_name = models.CharField(
        max_length=255, blank=True, editable=False, help_text="The name of the file it came from. Staff only."
    )
    visibility = models.CharField(max_length=10, choices=Visibility, default=Visibility.PRIVATE)
    nsfw = models.CharField("NSFW", max_length=10, choices=Nsfw, default=Nsfw.UNKNOWN)
    starred = models.BooleanField(default=False)
    rating = models.PositiveSmallIntegerField(
        default=0, validators=[MaxValueValidator(HIGHEST_RATING)], help_text="1 to 5; 0 is none."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="In the trash since.")

    storage_name = models.CharField(max_length=200, help_text="Relative to the media root.")
    sha256 = models.CharField("SHA-256", max_length=64)
    size_bytes = models.PositiveBigIntegerField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    format = models.CharField(max_length=4, choices=Format)
    placeholder = models.CharField(
        max_length=100,
        blank=True,
        editable=False,
        help_text="What to show until the picture is there: a BlurHash.",
    )

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
            models.CheckConstraint(name="image_rating_in_range", condition=Q(rating__lte=HIGHEST_RATING)),
            models.CheckConstraint(
                name="image_visibility_known", condition=Q(visibility__in=["public", "private"])
            ),
            models.CheckConstraint(
                name="image_nsfw_known", condition=Q(nsfw__in=["unknown", "safe", "flagged"])
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
            # Lists. None of them looks into the trash, and each can be walked in its order from any place: what
            # everybody sees by the first of each pair, and what staff sees by the second.
            models.Index(
                name="image_visible_newest",
                fields=["visibility", "-created_at", "-id"],
                condition=Q(deleted_at=None),
            ),
            models.Index(name="image_newest", fields=["-created_at", "-id"], condition=Q(deleted_at=None)),
            models.Index(
                name="image_visible_best",
                fields=["visibility", "-rating", "-created_at", "-id"],
                condition=Q(deleted_at=None),
            ),
            models.Index(
                name="image_best", fields=["-rating", "-created_at", "-id"], condition=Q(deleted_at=None)
            ),
            models.Index(
                name="image_visible_largest",
                fields=["visibility", "-size_bytes", "-id"],
                condition=Q(deleted_at=None),
            ),
            models.Index(name="image_largest", fields=["-size_bytes", "-id"], condition=Q(deleted_at=None)),
            models.Index(
                name="image_visible_by_name",
                fields=["visibility", "name", "id"],
                condition=Q(deleted_at=None),
            ),
            models.Index(name="image_by_name", fields=["name", "id"], condition=Q(deleted_at=None)),
            models.Index(
                name="image_by_nsfw", fields=["nsfw", "-created_at", "-id"], condition=Q(deleted_at=None)
            ),
            models.Index(
                name="image_by_source",
                fields=["source_kind", "-created_at", "-id"],
                condition=Q(deleted_at=None),
            ),
            models.Index(
                name="image_by_model",
                fields=["base_model", "-created_at", "-id"],
                condition=Q(deleted_at=None),
            ),
            models.Index(
                name="image_by_owner", fields=["owner", "-created_at", "-id"], condition=Q(deleted_at=None)
            ),
            models.Index(name="image_by_seed", fields=["seed", "id"], condition=Q(deleted_at=None)),
            # A condition, because SQLite does not use an index on a boolean for `WHERE starred`.
            models.Index(
                name="image_visible_starred",
                fields=["visibility", "-created_at", "-id"],
                condition=Q(starred=True),
            ),
            models.Index(name="image_starred", fields=["-created_at", "-id"], condition=Q(starred=True)),
            models.Index(
                name="image_trash", fields=["deleted_at", "id"], condition=Q(deleted_at__isnull=False)
            ),
            # What has no thumbnails and no placeholder yet: nearly nothing, whatever else there is.
            models.Index(
                name="image_unprepared", fields=["id"], condition=Q(placeholder="", deleted_at=None)
            ),
            # Is this blob still in use?
            models.Index(name="image_by_content", fields=["sha256"]),
        ]

    def __str__(self) -> str:
        return self.name


class ImageLora(models.Model):
    """That an image was made with an adapter: what the filter by adapter looks up. ``Image.loras`` has the details."""

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="used_loras", db_index=False)
    lora_id = models.CharField("adapter", max_length=64)

    class Meta:
        verbose_name = "use of an adapter"
        verbose_name_plural = "uses of adapters"
        constraints = [models.UniqueConstraint(name="image_lora_once", fields=["image", "lora_id"])]
        indexes = [models.Index(name="image_lora_images", fields=["lora_id", "image"])]

    def __str__(self) -> str:
        return f"{self.lora_id} in {self.image_id}"
