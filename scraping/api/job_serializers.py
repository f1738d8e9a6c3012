"""How crawls look in the API, and what is asked of them."""

import uuid
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from albums.models import Album, Visibility
from imagehub.api.jobs import JobSerializer
from imagehub.api.serializers import (
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictIntegerField,
    StrictPrimaryKeyRelatedField,
    StrictSerializer,
    ToldInPart,
)
from scraping.models import ScrapeJob
from scraping.models.jobs import LONGEST_NAME
from scraping.services.folders import folder_of, log_of
from scraping.services.listing import ADDRESSES
from scraping.services.plans import MOST_URLS

LONGEST_DESCRIPTION = 5000
GREATEST_DEPTH = 10
MOST_IMAGES = 10_000
MOST_PAGES = 100_000
GREATEST_SIDE = 16_384
FOLLOW = ("host", "site", "anywhere")
MOST_DECISIONS = 10_000


class ScrapeJobSerializer(ToldInPart, JobSerializer):
    """A crawl. Everybody is told that it is there, how far it is and what it has brought; staff everything."""

    # Beside what `JobSerializer` needs the context holds `visible_albums`, the ids of those that the caller may see, and for
    # staff `image_counts` and `page_counts`, by the ids of jobs. Lists for staff are made by `for_lists`.

    album = serializers.SerializerMethodField(
        help_text="Where the pictures go. null: there is none yet, or none that the caller may see."
    )
    source_url = serializers.SerializerMethodField(help_text="The first address.")
    config = serializers.SerializerMethodField(
        help_text="What was decided when it was asked for. In lists without the addresses."
    )
    staging_path = serializers.SerializerMethodField(help_text="The folder of everything of it.")
    log_path = serializers.SerializerMethodField()
    counts = serializers.SerializerMethodField(help_text="Pictures by state.")
    page_counts = serializers.SerializerMethodField(help_text="Pages by state.")
    retry_of = serializers.UUIDField(source="retry_of_id", allow_null=True, read_only=True)

    class Meta(JobSerializer.Meta):
        model = ScrapeJob
        public_fields = [
            "id", "kind", "status", "name", "description", "host", "progress", "step", "total_steps", "eta_seconds",
            "pages", "images_found", "images_saved", "album", "created_at", "queued_at", "started_at", "finished_at",
            "duration_seconds",
        ]  # fmt: skip
        fields = [
            *(name for name in JobSerializer.Meta.fields if name != "preview"),
            "name", "description", "host", "pages", "images_found", "images_saved", "album", "album_name", "visibility",
            "needs_review", "source_url", "config", "staging_path", "log_path", "counts", "page_counts", "end_reason",
            "is_truncated", "retry_of", "purged_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.UUIDField(allow_null=True))
    def get_album(self, job: ScrapeJob) -> str | None:
        visible: set[uuid.UUID] = self.context["visible_albums"]
        return str(job.album_id) if job.album_id in visible else None

    def get_source_url(self, job: ScrapeJob) -> str:
        if self.context.get("is_list"):
            return job.first_url  # type: ignore[attr-defined]
        return next((url for name in ADDRESSES for url in job.config.get(name, ())), "")

    def get_config(self, job: ScrapeJob) -> dict[str, Any]:
        return job.short_config if self.context.get("is_list") else job.config  # type: ignore[attr-defined]

    def get_staging_path(self, job: ScrapeJob) -> str:
        return str(folder_of(job).root)

    def get_log_path(self, job: ScrapeJob) -> str:
        return str(log_of(job))

    def get_counts(self, job: ScrapeJob) -> dict[str, int]:
        return self.context["image_counts"][job.pk]

    def get_page_counts(self, job: ScrapeJob) -> dict[str, int]:
        return self.context["page_counts"][job.pk]


class NewCrawlSerializer(StrictSerializer):
    """A crawl to be started: of one address and what it leads to, or of a list of addresses."""

    url = StrictCharField(required=False, help_text="Of a page to begin with.")
    urls = serializers.ListField(
        child=StrictCharField(),
        required=False,
        min_length=1,
        max_length=MOST_URLS,
        help_text=(
            "In its place: what ends like a picture is fetched as one, all else is read as a page. No links are followed."
        ),
    )
    name = StrictCharField(
        max_length=LONGEST_NAME,
        required=False,
        help_text="Everybody may read it. Default: the host.",
    )
    description = StrictCharField(
        max_length=LONGEST_DESCRIPTION, required=False, allow_blank=True, help_text="Everybody may read it."
    )
    depth = StrictIntegerField(
        min_value=1,
        max_value=GREATEST_DEPTH,
        required=False,
        help_text="1 reads the first page only; each more follows the links of what was read before.",
    )
    max_images = StrictIntegerField(
        min_value=1, max_value=MOST_IMAGES, required=False, help_text="That are kept. Default: 1000."
    )
    max_pages = StrictIntegerField(
        min_value=1, max_value=MOST_PAGES, required=False, help_text="That are read."
    )
    follow_links = StrictBooleanField(default=True, help_text="`false` is the same as a depth of 1.")
    follow = StrictChoiceField(
        choices=FOLLOW,
        default="site",
        help_text="Where links lead that are followed: to the same host, the same registrable domain, or anywhere.",
    )
    min_side = StrictIntegerField(
        min_value=1,
        max_value=GREATEST_SIDE,
        required=False,
        help_text="In pixels, of pictures that are kept.",
    )
    album = StrictPrimaryKeyRelatedField(
        queryset=Album.objects.all(), required=False, help_text="Where the pictures go."
    )
    album_name = StrictCharField(
        max_length=LONGEST_NAME,
        required=False,
        help_text="In its place, of an album that is made. Default: the name of the crawl.",
    )
    visibility = StrictChoiceField(
        choices=Visibility.choices,
        default=Visibility.PRIVATE,
        help_text="Of the pictures and of a new album.",
    )
    obey_robots = StrictBooleanField(
        default=True,
        help_text="`false` also fetches what robots.txt forbids. The audit trail says who decided so.",
    )
    obey_opt_outs = StrictBooleanField(
        default=True, help_text="`false` also keeps pictures whose site opts out of AI. Likewise."
    )
    review = StrictBooleanField(
        default=False, help_text="Pictures wait until somebody has approved them.", source="needs_review"
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "album" in attrs and "album_name" in attrs:
            raise serializers.ValidationError(
                {"album_name": "Name an album that is there, or what a new one is called."}, code="invalid"
            )
        return attrs


class ReviewSerializer(StrictSerializer):
    """What is to become of pictures that wait."""

    approve = serializers.ListField(
        child=StrictIntegerField(),
        default=list,
        max_length=MOST_DECISIONS,
        help_text="Ids of items that are taken into the album, in a moment.",
    )
    reject = serializers.ListField(
        child=StrictIntegerField(),
        default=list,
        max_length=MOST_DECISIONS,
        help_text="Ids of items that are not.",
    )
