import uuid

import django_filters
from django.db.models import QuerySet

from albums.api.filters import FlagFilter
from albums.models import Album
from scraping.models import ScrapedImage, ScrapedPage, ScrapeJob


class ScrapeJobFilter(django_filters.FilterSet):
    """Which crawls to list. An album that the caller may not see has none, as one that does not exist."""

    album = django_filters.UUIDFilter(method="into_album", label="Crawls whose pictures go there.")

    class Meta:
        model = ScrapeJob
        fields = ["status"]

    def into_album(self, queryset: QuerySet[ScrapeJob], name: str, value: uuid.UUID) -> QuerySet[ScrapeJob]:
        return queryset.filter(album__in=Album.objects.visible_to(self.request.user).filter(pk=value))


class ScrapedImageFilter(django_filters.FilterSet):
    near_duplicates = FlagFilter(
        method="waiting_lookalikes",
        label="true: those that look like an image that was there, both of them still, and nobody has chosen.",
    )

    class Meta:
        model = ScrapedImage
        fields = ["state", "reason"]

    def waiting_lookalikes(
        self,
        queryset: QuerySet[ScrapedImage],
        name: str,
        value: bool,  # noqa: FBT001 - as django-filter calls it
    ) -> QuerySet[ScrapedImage]:
        waiting = {
            "is_settled": False,
            "resembles__isnull": False,
            "resembles__deleted_at": None,
            "image__isnull": False,
            "image__deleted_at": None,
        }
        return queryset.filter(**waiting) if value else queryset.exclude(**waiting)


class ScrapedPageFilter(django_filters.FilterSet):
    class Meta:
        model = ScrapedPage
        fields = ["state", "reason"]
