"""How well an album is labelled: figures for whoever wants to train on it. Trashed images count nowhere."""

from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet

from albums.models import Album, AlbumImage, Image, Label, LabelKind, LabelOrigin

TOP_TAGS = 10


@dataclass(frozen=True)
class TagCount:
    label_text: str
    """Without case, as equal tags are compared."""
    count: int


@dataclass(frozen=True)
class Coverage:
    """Shares of the images, in percent with two decimal places."""

    labels_percent: float = 0.0
    manual_percent: float = 0.0
    caption_percent: float = 0.0


@dataclass(frozen=True)
class LabelAnalytics:
    """The labels of an album, counted."""

    album: Album
    image_count: int
    labels_total: int
    images_with_labels: int
    images_with_manual_labels: int
    images_with_captions: int
    last_labeled_at: datetime | None
    labels_by_type: dict[str, int] = field(default_factory=dict)
    labels_by_origin: dict[str, int] = field(default_factory=dict)
    top_tags: list[TagCount] = field(default_factory=list)

    @property
    def album_id(self) -> object:
        return self.album.pk

    @property
    def unlabeled_images(self) -> int:
        return self.image_count - self.images_with_labels

    @property
    def average_labels_per_image(self) -> float:
        return round(self.labels_total / self.image_count, 2) if self.image_count else 0.0

    @property
    def coverage(self) -> Coverage:
        def percent(images: int) -> float:
            return round(100 * images / self.image_count, 2) if self.image_count else 0.0

        return Coverage(
            labels_percent=percent(self.images_with_labels),
            manual_percent=percent(self.images_with_manual_labels),
            caption_percent=percent(self.images_with_captions),
        )


def analyse_labels(album: Album) -> LabelAnalytics:
    """Count the labels of an album's images. Three queries, however many there are."""
    images = Image.objects.live().filter(memberships__album=album)
    # By their places, and not through the images: no row of an image is read.
    places = AlbumImage.objects.filter(album=album).exclude(image__in=Image.objects.in_trash().values("pk"))
    labels = Label.objects.filter(image__in=places.values("image"))

    def having(**of: str) -> Q:
        return Q(Exists(Label.objects.filter(image=OuterRef("pk"), **of)))

    counts = images.aggregate(
        images=Count("*"),
        labeled=Count("pk", filter=having()),
        manual=Count("pk", filter=having(origin=LabelOrigin.HUMAN)),
        captioned=Count("pk", filter=having(kind=LabelKind.CAPTION)),
    )
    by_type, by_origin = dict.fromkeys(LabelKind.values, 0), dict.fromkeys(LabelOrigin.values, 0)
    last = None
    groups = labels.values_list("kind", "origin").annotate(count=Count("*"), last=Max("updated_at"))
    for kind, origin, count, latest in groups:
        by_type[kind] += count
        by_origin[origin] += count
        last = max(last, latest) if last else latest
    return LabelAnalytics(
        album=album,
        image_count=counts["images"],
        labels_total=sum(by_type.values()),
        images_with_labels=counts["labeled"],
        images_with_manual_labels=counts["manual"],
        images_with_captions=counts["captioned"],
        last_labeled_at=last,
        labels_by_type=by_type,
        labels_by_origin=by_origin,
        top_tags=_top_tags(labels),
    )


def _top_tags(labels: QuerySet[Label]) -> list[TagCount]:
    tags = labels.filter(kind=LabelKind.TAG).values_list("identity").annotate(count=Count("*"))
    return [TagCount(tag, count) for tag, count in tags.order_by("-count", "identity")[:TOP_TAGS]]
