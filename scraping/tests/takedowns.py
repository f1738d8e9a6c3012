"""Pictures and crawls to be taken down, and the command that does it."""

import json
from io import StringIO

from django.core.management import call_command
from django.utils import timezone

from albums.models import Image
from albums.tests.factories import ImageFactory
from imagehub.jobs.models import JobStatus
from scraping.models import ScrapeJob, domain_key
from scraping.services.plans import Plan, config_of
from scraping.tests.factories import ScrapedImageFactory, ScrapeJobFactory


def fetched(url="https://gallery.example/1.png", page_url="https://pages.example/", **fields) -> Image:
    """A public picture that came from an address, by a crawl that has ended."""
    image = fields.pop("image", None) or ImageFactory(public=True)
    fields = {"job": ended()} | fields
    host, page_host = (address.split("/")[2].split("@")[-1] if address else "" for address in (url, page_url))
    ScrapedImageFactory(
        image=image,
        url=url,
        page_url=page_url,
        domain=domain_key(host.rpartition(":")[0] or host),
        page_domain=domain_key(page_host.rpartition(":")[0] or page_host),
        **fields,
    )
    return image


def ended(**fields) -> ScrapeJob:
    return ScrapeJobFactory(status=JobStatus.COMPLETED, finished_at=timezone.now(), **fields)


def queued(**fields) -> ScrapeJob:
    job = ScrapeJobFactory(**fields)
    ScrapeJob.objects.filter(pk=job.pk).enqueue()
    return job


def plan(*urls: str, **fields) -> dict:
    return config_of(Plan(start_urls=list(urls), max_pages=10, max_images=10, min_side=64, **fields))


def takedown(*args: str) -> dict:
    output = StringIO()
    call_command("takedown", *args, "--json", stdout=output)
    return json.loads(output.getvalue())


def found(*args: str) -> set[str]:
    """The ids of what is listed, and nothing changed."""
    return {one["id"] for one in takedown(*args)["found"]}


def ids(*rows) -> set[str]:
    return {str(row.pk) for row in rows}
