"""Crawls, and the addresses each of them has met."""

import hashlib
from typing import Self
from urllib.parse import urlsplit

from django.db import models
from django.db.models import Q

from albums.models import Album, Image, Visibility
from imagehub.egress.hosts import read_host
from imagehub.jobs.models import Job

LONGEST_NAME = 200
LONGEST_HOST = 253
"""Of a name in the DNS (RFC 1035, 3.1)."""
LONGEST_KEY = LONGEST_HOST + 2


def address_key(url: str) -> str:
    """Return what names an address within a crawl: addresses are too long for an index of PostgreSQL."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def domain_key(host: str) -> str:
    """Return a host with its labels the other way round: those of one domain begin alike, and stand together in an index.

    ``www.example.com`` is ``com.example.www``, however it is spelled; an address of the internet protocol stays as it is.
    """
    try:
        known = read_host(host.rstrip("."))
    except ValueError:  # a page may call its hosts what it likes
        return ".".join(reversed(host.rstrip(".").lower().split(".")))[:LONGEST_KEY]
    return ".".join(reversed(known.split("."))) if isinstance(known, str) else str(known)


def in_domain(column: str, host: str) -> Q:
    """Return the condition that a column of domain keys names a host or one below it. What is no host names nothing."""
    try:
        known = read_host(host.rstrip("."))
    except ValueError:
        return Q(pk__in=[])
    is_it = Q(**{column: domain_key(host)})
    if not isinstance(known, str):  # nothing is below an address of the internet protocol
        return is_it
    return is_it | Q(**{f"{column}__startswith": f"{domain_key(host)}."})


class ScrapeJob(Job):
    """One crawl: from addresses of the web to pictures in an album."""

    name = models.CharField(max_length=LONGEST_NAME)
    description = models.TextField(blank=True)
    host = models.CharField(max_length=LONGEST_HOST, help_text="Of the first address. Everybody may read it.")
    config = models.JSONField(
        help_text="Which addresses, how far, and what is kept: see scraping.services.plans."
    )
    album = models.ForeignKey(
        Album,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Where the pictures go. Empty until the first one is there, where a new one is to be made.",
    )
    album_name = models.CharField(
        max_length=LONGEST_NAME, blank=True, help_text="What a new album is to be called."
    )
    visibility = models.CharField(
        max_length=10, choices=Visibility, default=Visibility.PRIVATE, help_text="Of the pictures."
    )
    needs_review = models.BooleanField(
        default=False, help_text="Pictures wait until somebody has approved them."
    )
    retry_of = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="retries", editable=False
    )

    pages = models.PositiveIntegerField(default=0, editable=False, help_text="That were read.")
    images_found = models.PositiveIntegerField(default=0, editable=False)
    images_saved = models.PositiveIntegerField(
        default=0, editable=False, help_text="That are in the album by this crawl."
    )
    end_reason = models.CharField(
        max_length=20, blank=True, editable=False, help_text="Why it went no further: `finished`, or a limit."
    )
    is_truncated = models.BooleanField(
        default=False, editable=False, help_text="There were more addresses than are even noted."
    )
    purged_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When its files were deleted."
    )

    class Meta(Job.Meta):
        pass

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> str:
        """The name of its folder under the scraping root."""
        return f"jobs/{self.pk}"


class ImageOutcome(models.TextChoices):
    """What became of the address of a picture. All but ``review`` are final."""

    SAVED = "saved", "Saved"
    DUPLICATE = "duplicate", "There already"
    FILTERED = "filtered", "Not wanted"
    BLOCKED = "blocked", "Blocked address"
    ROBOTS = "robots", "Forbidden by robots.txt"
    OPTED_OUT = "opted_out", "Opted out"
    FAILED = "failed", "Failed"
    SKIPPED = "skipped", "Not reached"
    REVIEW = "review", "Waits for review"


class PageOutcome(models.TextChoices):
    """What became of the address of a page."""

    VISITED = "visited", "Read"
    FILTERED = "filtered", "Not wanted"
    BLOCKED = "blocked", "Blocked address"
    ROBOTS = "robots", "Forbidden by robots.txt"
    OPTED_OUT = "opted_out", "Opted out"
    FAILED = "failed", "Failed"
    SKIPPED = "skipped", "Not reached"


class ScrapedQuerySet(models.QuerySet["ScrapedImage"]):
    def from_domain(self, host: str) -> Self:
        """Keep what was fetched from a host or one below it, or shown on a page there."""
        return self.filter(in_domain("domain", host) | in_domain("page_domain", host))


class Address(models.Model):
    """An address that a crawl has met, and how it ended: its provenance."""

    url = models.TextField()
    key = models.CharField(max_length=32, editable=False, help_text="See address_key.")
    page_url = models.TextField(blank=True, help_text="Where it was found; empty: it was named.")
    final_url = models.TextField(blank=True, help_text="Where redirects have led.")
    redirects = models.JSONField(default=list, blank=True, help_text="The addresses on the way there.")
    domain = models.CharField(max_length=LONGEST_KEY, db_index=True, help_text="Its host: see domain_key.")
    state = models.CharField(max_length=10)
    reason = models.CharField(max_length=40, blank=True, help_text="Why, to programs.")
    status = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Of the last answer.")
    robots = models.CharField(max_length=20, blank=True, help_text="What robots.txt says of it.")
    opt_out = models.CharField(max_length=20, blank=True, help_text="How it opts out of AI, if it does.")
    attempts = models.PositiveSmallIntegerField(default=1)
    fetched_at = models.DateTimeField(help_text="When it came to its end.")

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.url[:100]

    @property
    def host(self) -> str:
        return (urlsplit(self.url).hostname or "").rstrip(".")


class ScrapedImage(Address):
    """A picture that a crawl has found."""

    job = models.ForeignKey(ScrapeJob, on_delete=models.CASCADE, related_name="items", db_index=False)
    position = models.PositiveIntegerField(help_text="Which of the crawl's pictures it is, from 0.")
    state = models.CharField(max_length=10, choices=ImageOutcome)
    page_domain = models.CharField(
        max_length=LONGEST_KEY, blank=True, db_index=True, help_text="The host of its page."
    )
    origin = models.CharField(max_length=20, blank=True, help_text="How the page shows it.")
    captions = models.JSONField(default=list, blank=True, help_text="Texts about it: text, origin.")
    licence = models.TextField(blank=True, help_text="The address of a licence, where the page states one.")
    sha256 = models.CharField("SHA-256", max_length=64, blank=True, help_text="Of the file as it came.")
    size_bytes = models.PositiveBigIntegerField(default=0)
    width = models.PositiveIntegerField(default=0)
    height = models.PositiveIntegerField(default=0)
    format = models.CharField(max_length=4, blank=True)
    fingerprint = models.CharField(max_length=112, blank=True, help_text="See albums.similarity.")
    duplicate_of = models.CharField(
        max_length=64, blank=True, help_text="SHA-256 of the file of this crawl that is kept instead."
    )
    image = models.ForeignKey(
        Image, null=True, blank=True, on_delete=models.SET_NULL, related_name="scraped_from"
    )
    resembles = models.ForeignKey(
        Image,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="An image that looks the same; somebody has to choose.",
    )
    is_settled = models.BooleanField(default=False, help_text="Somebody has chosen.")

    objects = ScrapedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(name="scrapedimage_once", fields=["job", "key"]),
            models.UniqueConstraint(name="scrapedimage_position", fields=["job", "position"]),
            models.CheckConstraint(
                name="scrapedimage_state_known", condition=Q(state__in=ImageOutcome.values)
            ),
            models.CheckConstraint(
                name="scrapedimage_saved_has_content", condition=~Q(state="saved") | ~Q(sha256="")
            ),
        ]
        indexes = [
            models.Index(name="scrapedimage_by_state", fields=["job", "state", "position"]),
            models.Index(
                name="scrapedimage_lookalikes",
                fields=["job", "position"],
                condition=Q(resembles__isnull=False, is_settled=False),
            ),
        ]

    @property
    def file_name(self) -> str:
        """The name of its file in the folder of the crawl."""
        return f"{self.sha256}.{self.format}"


class ScrapedPage(Address):
    """A page that a crawl has met."""

    job = models.ForeignKey(ScrapeJob, on_delete=models.CASCADE, related_name="scraped_pages", db_index=False)
    state = models.CharField(max_length=10, choices=PageOutcome)
    depth = models.PositiveSmallIntegerField(default=1)
    images_found = models.PositiveIntegerField(default=0)
    links_found = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="scrapedpage_once", fields=["job", "key"]),
            models.CheckConstraint(name="scrapedpage_state_known", condition=Q(state__in=PageOutcome.values)),
        ]
        indexes = [models.Index(name="scrapedpage_in_order", fields=["job", "id"])]
