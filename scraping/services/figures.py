"""What is counted: what became of the addresses of crawls, and how all crawls stand together."""

import os
import stat
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.core.cache import cache
from django.db.models import Count, Q, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from imagehub import roots
from imagehub.jobs.models import JobStatus
from scraping.models import (
    HostRecord,
    ImageOutcome,
    PageOutcome,
    ScrapedImage,
    ScrapedPage,
    ScrapeJob,
)
from scraping.services.plans import manners

RECENT = timedelta(days=7)

STAGING_KEY = "scraping-staging-bytes"
STAGING_SECONDS = 60
"""How long it is good to know how much lies in the folders of crawls."""

Counts = dict[uuid.UUID, dict[str, int]]


def image_counts_of(jobs: Sequence[ScrapeJob]) -> Counts:
    """Return how many pictures of each crawl have come to which end: one query for all of them."""
    return _counts(ScrapedImage, jobs, ImageOutcome.values)


def page_counts_of(jobs: Sequence[ScrapeJob]) -> Counts:
    """Return how many pages of each crawl have come to which end: one query for all of them."""
    return _counts(ScrapedPage, jobs, PageOutcome.values)


def _counts(
    model: type[ScrapedImage] | type[ScrapedPage], jobs: Sequence[ScrapeJob], states: Sequence[str]
) -> Counts:
    counts = {job.pk: dict.fromkeys(states, 0) for job in jobs}
    rows = model._default_manager.filter(job__in=list(counts)).order_by().values_list("job", "state")
    for job, state, count in rows.annotate(count=Count("pk")):
        counts[job][state] = count
    return counts


@dataclass(frozen=True)
class Figures:
    """All crawls together."""

    total_jobs: int
    pending_jobs: int
    queued_jobs: int
    running_jobs: int
    completed_jobs: int
    failed_jobs: int
    cancelled_jobs: int
    recent_jobs: int
    """Of the last seven days."""
    images_saved: int


def figures() -> Figures:
    """Return how many crawls stand where, and what they have brought: one query."""
    counts = ScrapeJob.objects.aggregate(
        total_jobs=Count("pk"),
        recent_jobs=Count("pk", filter=Q(created_at__gte=timezone.now() - RECENT)),
        images_saved=Coalesce(Sum("images_saved"), 0),
        **{f"{status}_jobs": Count("pk", filter=Q(status=status)) for status in JobStatus.values},
    )
    return Figures(**counts)


@dataclass(frozen=True)
class StoreFigures:
    """What crawls keep on this machine and remember of hosts."""

    staging_bytes: int
    """In the folders of crawls; as it was up to a minute ago."""
    known_hosts: int
    open_breakers: int
    """Hosts that have failed too often in a row and are left alone."""


def store_figures() -> StoreFigures:
    """Return what crawls keep and remember: one query, and a walk through their folders once a minute."""
    is_broken = Q(
        state__failures__gte=manners().breaker_failures,
        state__closed_until__gt=time.time(),
    )
    hosts = HostRecord.objects.aggregate(known=Count("pk"), broken=Count("pk", filter=is_broken))
    size = cache.get(STAGING_KEY)
    if size is None:
        size = _bytes_below(roots.scraping_root())
        cache.set(STAGING_KEY, size, STAGING_SECONDS)
    return StoreFigures(size, hosts["known"], hosts["broken"])


def _bytes_below(folder: Path) -> int:
    """Return the bytes of all files below a folder, but for what links lead to."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # a crawl that runs deletes some of them
                status = (Path(parent) / name).lstat()
                found += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return found
