"""Labels: what people, imports, pages and models say about an image, and what they said before."""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from albums.models.images import Image
from imagehub.identifiers import new_id

LONGEST_CAPTION = 2000
LONGEST_TAG = 100


class LabelKind(models.TextChoices):
    CAPTION = "caption", "Caption"
    TAG = "tag", "Tag"


class LabelOrigin(models.TextChoices):
    """Who says so. A person is believed before everybody else."""

    HUMAN = "human", "Human"
    IMPORT = "import", "Import"
    SCRAPE = "scrape", "Page it was found on"
    MODEL = "model", "Model"


class Label(models.Model):
    """A caption or a tag of an image, as it stands now.

    ``identity`` is what makes it one: a tag's text without case and surrounding space, and of a caption its source:
    an image has one caption by people, one of each model, and so on.
    """

    is_new: bool  # whether the service that returned it has just made it,
    has_changed: bool  # or what it says

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="labels", db_index=False)
    kind = models.CharField(max_length=10, choices=LabelKind)
    text = models.TextField(max_length=LONGEST_CAPTION)
    identity = models.CharField(max_length=220, editable=False)
    origin = models.CharField(max_length=10, choices=LabelOrigin, default=LabelOrigin.HUMAN)
    model = models.CharField(
        max_length=200, blank=True, help_text="Name and version of the model that said so."
    )
    confidence = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0), MaxValueValidator(1)], help_text="0 to 1."
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="label_once_per_image",
                fields=["image", "kind", "identity"],
                violation_error_message="The image has this label already.",
            ),
            models.CheckConstraint(name="label_kind_known", condition=Q(kind__in=["caption", "tag"])),
            models.CheckConstraint(
                name="label_origin_known", condition=Q(origin__in=["human", "import", "scrape", "model"])
            ),
            models.CheckConstraint(name="label_says_something", condition=~Q(text="") & ~Q(identity="")),
            models.CheckConstraint(name="label_model_named", condition=~Q(origin="model") | ~Q(model="")),
            models.CheckConstraint(
                name="label_confidence_in_range",
                condition=Q(confidence=None) | Q(confidence__gte=0, confidence__lte=1),
            ),
        ]
        indexes = [
            # The images with a tag.
            models.Index(name="label_by_identity", fields=["kind", "identity", "image"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.image_id}"


class LabelEdit(models.Model):
    """One change of the captions or tags of many images, which can be taken back: its revisions say how they were."""

    class Action(models.TextChoices):
        PREFIX = "prefix", "Put before each caption"
        SUFFIX = "suffix", "Put behind each caption"
        REPLACE = "replace", "Replace in captions"
        ADD_TAG = "add_tag", "Add a tag"
        REMOVE_TAG = "remove_tag", "Remove a tag"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    action = models.CharField(max_length=10, choices=Action)
    text = models.TextField()
    replacement = models.TextField(blank=True)
    images = models.PositiveIntegerField(help_text="How many it was about.")
    changed = models.PositiveIntegerField(help_text="Of how many it changed what is said.")
    made = models.JSONField(default=list, editable=False, help_text="The ids of labels that are new.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    undone_at = models.DateTimeField(null=True, blank=True, editable=False)
    undone_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="labeledit_action_known",
                condition=Q(action__in=["prefix", "suffix", "replace", "add_tag", "remove_tag"]),
            ),
        ]
        indexes = [models.Index(name="labeledit_newest", fields=["-created_at", "-id"])]

    def __str__(self) -> str:
        return f"{self.get_action_display()}, {self.changed} of {self.images} images"


class LabelRevision(models.Model):
    """What a label said until somebody changed or removed it. Written by services, and what it says is never changed."""

    class Change(models.TextChoices):
        REPLACED = "replaced", "Replaced"
        REMOVED = "removed", "Removed"

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="label_revisions", db_index=False)
    label_id = models.UUIDField(help_text="The label, which may be gone.")
    change = models.CharField(max_length=10, choices=Change)
    kind = models.CharField(max_length=10, choices=LabelKind)
    text = models.TextField()
    origin = models.CharField(max_length=10, choices=LabelOrigin)
    model = models.CharField(max_length=200, blank=True)
    confidence = models.FloatField(null=True, blank=True)
    made_at = models.DateTimeField(null=True, help_text="When the label was made, if that is known.")
    written_at = models.DateTimeField(help_text="When it began to say so.")
    written_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    changed_at = models.DateTimeField(default=timezone.now)
    changed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    edit = models.ForeignKey(
        LabelEdit, on_delete=models.SET_NULL, null=True, blank=True, related_name="revisions"
    )
    is_undone = models.BooleanField(
        default=False,
        help_text="The change was taken back, or took one back: the two together have changed nothing.",
    )

    class Meta:
        indexes = [models.Index(name="label_history", fields=["image", "-changed_at", "-id"])]

    def __str__(self) -> str:
        return f"{self.kind} of {self.image_id} until {self.changed_at:%Y-%m-%d}"
