"""How what crawls have met looks in the API: pictures, pages, hosts, logs and figures."""

from rest_framework import serializers

from imagehub.api.serializers import StrictSerializer, ToldInPart
from scraping.models import ScrapedImage, ScrapedPage
from scraping.services.hosts import HostReport, Standing


class FoundCaptionSerializer(serializers.Serializer):
    """A text about a picture, and where on its page it stands."""

    text = serializers.CharField()
    origin = serializers.CharField()


class ScrapedImageSerializer(serializers.ModelSerializer):
    """A picture that a crawl has found, and what became of it."""

    redirects = serializers.ListField(
        child=serializers.CharField(), help_text="The addresses on the way to `final_url`."
    )
    captions = FoundCaptionSerializer(many=True)
    image = serializers.UUIDField(source="image_id", allow_null=True)
    resembles = serializers.UUIDField(
        source="resembles_id", allow_null=True, help_text="An image that looks the same."
    )

    class Meta:
        model = ScrapedImage
        fields = [
            "id", "position", "url", "page_url", "final_url", "redirects", "state", "reason", "status", "robots", "opt_out",
            "licence", "origin", "captions", "sha256", "width", "height", "size_bytes", "format", "attempts", "fetched_at",
            "image", "resembles", "duplicate_of",
        ]  # fmt: skip
        read_only_fields = fields


class ScrapedPageSerializer(serializers.ModelSerializer):
    """A page that a crawl has met."""

    redirects = serializers.ListField(
        child=serializers.CharField(), help_text="The addresses on the way to `final_url`."
    )

    class Meta:
        model = ScrapedPage
        fields = [
            "id", "url", "page_url", "final_url", "redirects", "depth", "state", "reason", "status", "robots", "opt_out",
            "images_found", "links_found", "attempts", "fetched_at",
        ]  # fmt: skip
        read_only_fields = fields


class HostStandingSerializer(serializers.Serializer):
    """How all crawls treat a host."""

    interval_seconds = serializers.FloatField(
        source="interval", help_text="Between two requests. Its robots.txt may ask for more."
    )
    closed_until = serializers.DateTimeField(allow_null=True, help_text="Nothing is asked before that.")
    breaker_open = serializers.BooleanField(source="is_broken", help_text="It failed too often in a row.")
    requests = serializers.IntegerField()
    errors = serializers.SerializerMethodField()  # type: ignore[assignment]
    latency_seconds = serializers.SerializerMethodField(
        help_text="To the headers of an answer, as a moving average."
    )

    def get_errors(self, standing: Standing) -> int:
        return standing.errors

    def get_latency_seconds(self, standing: Standing) -> float:
        return round(standing.latency, 3)


class HostReportSerializer(serializers.Serializer):
    """What became of the addresses of one host in one crawl."""

    host = serializers.CharField()
    pages = serializers.DictField(child=serializers.IntegerField(), help_text="By state.")
    images = serializers.DictField(child=serializers.IntegerField(), help_text="By state.")
    errors = serializers.SerializerMethodField(  # type: ignore[assignment]
        help_text="Addresses that could not be fetched."
    )
    robots = serializers.DictField(
        child=serializers.IntegerField(),
        help_text="By what robots.txt says of an address. Those that were never asked about are left out.",
    )
    standing = HostStandingSerializer(allow_null=True, help_text="null: nothing is remembered of it.")

    def get_errors(self, report: HostReport) -> int:
        return report.errors


class HostsSerializer(serializers.Serializer):
    """The hosts of a crawl, those with the most addresses first."""

    results = HostReportSerializer(many=True)
    is_truncated = serializers.BooleanField(help_text="There are more hosts than are told.")


class CrawlLogQuerySerializer(StrictSerializer):
    tail = serializers.IntegerField(min_value=1, max_value=5000, default=200, help_text="How many lines.")


class CrawlLogSerializer(serializers.Serializer):
    """The end of what the program of a crawl printed, without colours and secrets."""

    lines = serializers.ListField(child=serializers.CharField())
    log_path = serializers.CharField()


class CrawlFiguresSerializer(ToldInPart):
    """All crawls together."""

    total_jobs = serializers.IntegerField()
    pending_jobs = serializers.IntegerField()
    queued_jobs = serializers.IntegerField()
    running_jobs = serializers.IntegerField()
    completed_jobs = serializers.IntegerField()
    failed_jobs = serializers.IntegerField()
    cancelled_jobs = serializers.IntegerField()
    recent_jobs = serializers.IntegerField(help_text="Of the last seven days.")
    images_saved = serializers.IntegerField()
    staging_bytes = serializers.IntegerField(
        required=False, help_text="In the folders of crawls; as it was up to a minute ago."
    )
    known_hosts = serializers.IntegerField(required=False, help_text="That something is remembered of.")
    open_breakers = serializers.IntegerField(
        required=False, help_text="Hosts that have failed too often in a row and are left alone."
    )

    class Meta:
        public_fields = [
            "total_jobs", "pending_jobs", "queued_jobs", "running_jobs", "completed_jobs", "failed_jobs", "cancelled_jobs",
            "recent_jobs", "images_saved",
        ]  # fmt: skip
