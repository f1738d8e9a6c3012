"""Crawls whose pictures wait for a decision, with files as a crawler leaves them."""

import hashlib
from typing import Any

from django.utils import timezone

from imagehub.jobs.models import JobStatus
from scraping.models import ScrapedImage, ScrapeJob
from scraping.services.folders import folder_of
from scraping.tests.factories import ScrapedImageFactory, ScrapeJobFactory
from scraping.tests.sites import drawing


def reviewed_crawl(count: int = 0, **fields: Any) -> ScrapeJob:
    """A crawl that has ended, and so many pictures of it that wait."""
    job = ScrapeJobFactory(**{"needs_review": True, "album_name": "Cards"} | fields)
    end(job)
    for seed in range(count):
        waiting_picture(job, seed)
    return job


def end(job: ScrapeJob) -> None:
    ScrapeJob.objects.filter(pk=job.pk).update(status=JobStatus.COMPLETED, finished_at=timezone.now())
    job.refresh_from_db()


def waiting_picture(job: ScrapeJob, seed: int, body: bytes = b"", **fields: Any) -> ScrapedImage:
    body = body or drawing(seed)
    sha256 = hashlib.sha256(body).hexdigest()
    folder = folder_of(job).pictures
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{sha256}.png").write_bytes(body)
    values = {"position": seed, "state": "review", "sha256": sha256, "size_bytes": len(body)}
    return ScrapedImageFactory(job=job, **values | fields)
