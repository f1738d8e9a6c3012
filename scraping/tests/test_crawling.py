"""Claimed crawls, carried out for real: the crawler, the store of politeness, the decoders and the rows."""

import pytest

from albums.models import Image
from imagehub.jobs.registry import get_kind
from imagehub.jobs.runner import run_next
from scraping.models import HostRecord, ScrapeJob
from scraping.services.crawls import start_crawl
from scraping.services.folders import folder_of
from scraping.tests.sites import Site, drawing

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def work(job: ScrapeJob) -> ScrapeJob:
    assert run_next(get_kind("scraping"))
    job.refresh_from_db()
    return job


def states(job: ScrapeJob) -> dict[str, str]:
    return {
        "/" + item.url.split("/", 3)[3]: f"{item.state} {item.reason}".strip() for item in job.items.all()
    }


def gallery(site: Site, count: int) -> None:
    site.show("/", page_of(count))
    for number in range(count):
        site.show(f"/{number}.png", drawing(number))


class TestCrawl:
    def test_brings_the_pictures_of_a_site_into_a_new_album(self, site, staff):
        gallery(site, 3)
        site.show("/", page_of(3) + "<img src=/broken.png><img src=/small.png>")
        site.show("/broken.png", drawing(0)[:200])
        site.show("/small.png", drawing(9, (16, 16)))

        job = work(start_crawl(owner=staff, url=site.url(), name="Cards", description="All of them"))

        assert (job.status, job.error_code, job.end_reason) == ("completed", "", "finished")
        assert states(job) == {
            "/0.png": "saved",
            "/1.png": "saved",
            "/2.png": "saved",
            "/broken.png": "filtered damaged",
            "/small.png": "filtered too_small",
        }
        assert (job.images_found, job.images_saved, job.pages, job.progress) == (5, 3, 1, 100)
        assert job.description == "All of them"
        assert job.album.name == "Cards"
        assert (job.album.kind, job.album.visibility) == ("scrape", "private")
        images = Image.objects.in_album(job.album).order_by("position")
        assert {image.visibility for image in images} == {"private"}
        assert [image.labels.get().text for image in images] == ["Picture 0", "Picture 1", "Picture 2"]
        assert {image.labels.get().origin for image in images} == {"scrape"}
        assert [image.source_index for image in images] == [
            item.position for item in job.items.filter(state="saved").order_by("position")
        ]
        assert not folder_of(job).pictures.exists()
        assert HostRecord.objects.get(pk="127.0.0.1").state["requests"] == len(site.paths())


def page_of(count: int) -> str:
    return "".join(f'<figure><img src=/{n}.png alt="Picture {n}"></figure>' for n in range(count))
