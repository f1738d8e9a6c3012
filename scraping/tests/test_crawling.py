"""Claimed crawls, carried out for real: the crawler, the store of politeness, the decoders and the rows."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import PIL.Image
import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from albums.models import Image, ImageQuerySet
from albums.services import delete_album
from albums.tests.factories import AlbumFactory
from imagehub import storage
from imagehub.egress.policy import BlockedAddress
from imagehub.jobs import reaper, stopping
from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import get_kind
from imagehub.jobs.runner import run_next
from imagehub.tests.together import beside
from scraping.models import HostRecord, ScrapedPage, ScrapeJob
from scraping.services import intake, reviewing
from scraping.services.crawls import NotRepeatable, cancel_crawl, retry_crawl, start_crawl
from scraping.services.folders import folder_of, log_of
from scraping.tests.factories import ScrapeJobFactory
from scraping.tests.sites import Site, after_refusals, drawing

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def work(job: ScrapeJob) -> ScrapeJob:
    assert run_next(get_kind("scraping"))
    job.refresh_from_db()
    return job


def states(job: ScrapeJob) -> dict[str, str]:
    return {
        "/" + item.url.split("/", 3)[3]: f"{item.state} {item.reason}".strip() for item in job.items.all()
    }


def page_of(*numbers: int) -> str:
    return "".join(f'<figure><img src=/{n}.png alt="Picture {n}"></figure>' for n in numbers)


def show_gallery(site: Site, count: int) -> None:
    site.show("/", page_of(*range(count)))
    for number in range(count):
        site.show(f"/{number}.png", drawing(number))


def images_of(job: ScrapeJob) -> ImageQuerySet:
    return Image.objects.in_album(job.album).order_by("position")


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class TestCrawl:
    def test_brings_the_pictures_of_a_site_into_a_new_album(self, site, staff):
        show_gallery(site, 3)
        site.show("/", page_of(0, 1, 2) + "<img src=/broken.png><img src=/small.png><a href=/more>more</a>")
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
        pages = {page.url: (page.state, page.reason, page.depth) for page in job.scraped_pages.all()}
        assert pages == {site.url(): ("visited", "", 1), site.url("/more"): ("failed", "http_404", 2)}
        assert (job.images_found, job.images_saved, job.pages, job.progress) == (5, 3, 1, 100)
        assert job.description == "All of them"
        assert (job.album.name, job.album.kind, job.album.visibility) == ("Cards", "scrape", "private")
        images = list(images_of(job))
        assert {image.visibility for image in images} == {"private"}
        assert [image.labels.get().text for image in images] == ["Picture 0", "Picture 1", "Picture 2"]
        assert {image.labels.get().origin for image in images} == {"scrape"}
        kept = job.items.filter(state="saved").order_by("position")
        assert [item.image for item in kept] == images
        assert [item.position for item in kept] == [image.source_index for image in images]
        assert {image.source_id for image in images} == {job.pk}
        assert not folder_of(job).pictures.exists()
        assert HostRecord.objects.get(pk="127.0.0.1").state["requests"] == len(site.paths())

    def test_takes_a_list_of_pictures_and_pages_and_follows_nothing(self, site, staff):
        show_gallery(site, 2)
        site.show("/view", page_of(1) + "<a href=/elsewhere>more</a>")
        site.show("/large", drawing(7, (2000, 1800), "PNG"))

        urls = [site.url("/0.png"), site.url("/view"), site.url("/large")]
        job = work(start_crawl(owner=staff, urls=urls))

        assert states(job) == {"/0.png": "saved", "/1.png": "saved", "/large": "saved"}
        assert "/elsewhere" not in site.paths()
        assert job.name == "127.0.0.1"

    def test_equal_bytes_are_one_file_and_each_address_knows_the_image(self, site, other_site, staff):
        for path in ("/a.png", "/b.png"):
            site.show(path, drawing(1))
        other_site.show("/c.png", drawing(1))
        album = AlbumFactory()

        urls = [site.url("/a.png"), site.url("/b.png"), other_site.url("/c.png")]
        job = work(start_crawl(owner=staff, urls=urls, album=album))

        assert Counter(item.state for item in job.items.all()) == {"saved": 1, "duplicate": 2}
        assert [item.image for item in job.items.all()] == [images_of(job).get()] * 3
        assert {item.domain for item in job.items.all()} == {"127.0.0.1", "127.0.0.2"}

    def test_what_the_library_has_already_is_put_into_the_album_and_not_stored_again(self, site, staff):
        show_gallery(site, 2)
        first = work(start_crawl(owner=staff, url=site.url()))
        elsewhere = AlbumFactory()

        job = work(start_crawl(owner=staff, url=site.url(), album=elsewhere))

        assert states(job) == {"/0.png": "duplicate in_library", "/1.png": "duplicate in_library"}
        assert set(images_of(job)) == set(images_of(first))
        assert (job.status, job.images_saved, Image.objects.count()) == ("completed", 0, 2)

    def test_a_second_crawl_into_an_album_fetches_only_what_is_new(self, site, staff):
        show_gallery(site, 2)
        first = work(start_crawl(owner=staff, url=site.url()))
        site.show("/", page_of(0, 1, 2))
        site.show("/2.png", drawing(2))

        job = work(retry_crawl(first, owner=staff))

        assert states(job) == {"/0.png": "duplicate seen", "/1.png": "duplicate seen", "/2.png": "saved"}
        assert (job.retry_of, job.album, job.config) == (first, first.album, first.config)
        assert images_of(job).count() == 3
        assert [site.paths().count(f"/{number}.png") for number in range(3)] == [1, 1, 1]
        assert all(item.image for item in job.items.all())

    def test_pictures_are_cleaned_like_uploads(self, site, staff):
        exif = PIL.Image.Exif()
        exif[0x010E] = "where I live"
        target = io.BytesIO()
        PIL.Image.open(io.BytesIO(drawing(1))).save(target, "JPEG", exif=exif)
        site.show("/1.jpg", target.getvalue(), "image/jpeg")

        job = work(start_crawl(owner=staff, urls=[site.url("/1.jpg")]))

        image = images_of(job).get()
        with storage.open_file(image.storage_name) as file:
            assert b"where I live" not in file.read()
        assert image.sha256 != job.items.get().sha256

    def test_waits_for_review_where_that_is_asked_for(self, site, staff):
        show_gallery(site, 2)

        job = work(start_crawl(owner=staff, url=site.url(), needs_review=True))

        assert set(states(job).values()) == {"review"}
        assert (job.status, job.album, Image.objects.count()) == ("completed", None, 0)
        assert {file.name for file in folder_of(job).pictures.iterdir()} == {
            item.file_name for item in job.items.all()
        }

    def test_recovers_pictures_behind_a_busy_server_and_shares_what_it_has_learned(self, site, staff):
        show_gallery(site, 2)
        site.pages["/1.png"] = after_refusals(1, site.pages["/1.png"], Retry_After="1")

        job = work(start_crawl(owner=staff, url=site.url()))

        assert set(states(job).values()) == {"saved"}
        first, second = site.times("/1.png")
        assert second - first >= 1.0
        state = HostRecord.objects.get(pk="127.0.0.1").state
        assert (state["errors"], state["holders"]) == (1, {})
        assert state["interval"] > 0.02


class TestFailure:
    def test_a_crawl_without_a_picture_has_failed_and_says_why(self, site, staff):
        site.show("/robots.txt", "User-agent: *\nDisallow: /", "text/plain")

        job = work(start_crawl(owner=staff, url=site.url()))

        assert (job.status, job.error_code) == ("failed", "no_images_found")
        assert job.error_detail == "No picture was found. Of the addresses 1 is forbidden by robots.txt."
        assert (job.album, job.end_reason) == (None, "finished")
        assert set(site.paths()) == {"/robots.txt", "/.well-known/tdmrep.json"}

    def test_an_address_that_is_known_to_be_blocked_is_refused_and_one_that_turns_out_to_be_fails(
        self, site, staff, settings
    ):
        settings.SCRAPING_ALLOW_PRIVATE = []
        with pytest.raises(BlockedAddress) as refused:
            start_crawl(owner=staff, urls=["https://example.com/", site.url()])
        assert refused.value.pointer == "/urls/1"

        settings.SCRAPING_ALLOW_PRIVATE = [f"127.0.0.1:{site.port}"]
        job = start_crawl(owner=staff, url=site.url())
        settings.SCRAPING_ALLOW_PRIVATE = []
        work(job)

        assert (job.status, job.error_code) == ("failed", "blocked_address")
        assert site.connections == 0

    def test_a_crawler_that_cannot_write_fails_with_its_reason(self, site, staff, monkeypatch):
        show_gallery(site, 1)
        job = start_crawl(owner=staff, url=site.url())
        folder_of(job).root.mkdir(parents=True)
        folder_of(job).pictures.write_text("in the way")

        work(job)

        assert (job.status, job.error_code) == ("failed", "storage_error")
        assert "could not write" in job.error_detail
        assert "FileExistsError" in log_of(job).read_text()

    def test_one_blocked_picture_among_others_is_not_why_nothing_was_found(self, site, staff):
        site.show("/", "<img src=/small.png><img src=http://10.0.0.1/track.gif>")
        site.show("/small.png", drawing(9, (16, 16)))

        job = work(start_crawl(owner=staff, url=site.url()))

        assert (job.error_code, job.images_found) == ("no_images_found", 2)
        assert "1 is not of a kind that is wanted" in job.error_detail

    def test_a_crawler_that_ends_without_a_word_has_cost_an_attempt(self, site, staff, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/bin/true")
        job = start_crawl(owner=staff, url=site.url())

        for attempt in (1, 2, 3):
            work(job)
            assert job.attempt == attempt

        assert (job.status, job.error_code) == ("failed", "crawler_died")


class TestCancel:
    def test_ends_within_two_seconds_and_brings_every_address_to_an_end(self, site, staff):
        show_gallery(site, 40)
        site.latency = 0.15
        job = start_crawl(owner=staff, url=site.url())
        worker = beside(lambda: run_next(get_kind("scraping")))
        wait_until(lambda: job.items.filter(state="saved").exists())

        asked_at = time.time()
        cancel_crawl(job)
        worker.join(timeout=30)

        job.refresh_from_db()
        assert job.status == "cancelled"
        assert max(at for at, _ in site.requests) < asked_at + 2
        counts = Counter(item.state for item in job.items.all())
        assert set(counts) == {"saved", "skipped"}
        assert counts["saved"] == job.images_saved == images_of(job).count()
        assert counts.total() == 40
        assert {item.reason for item in job.items.filter(state="skipped")} == {"cancelled"}
        assert not folder_of(job).pictures.exists()


class TestResume:
    def test_a_crawl_that_is_handed_back_goes_on_later(self, site, staff):
        show_gallery(site, 30)
        site.latency = 0.1
        job = start_crawl(owner=staff, url=site.url())
        worker = beside(lambda: run_next(get_kind("scraping")))
        wait_until(lambda: job.items.filter(state="saved").exists())
        stopping.request_stop()
        worker.join(timeout=30)
        stopping.clear_stop()
        job.refresh_from_db()
        assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
        assert 0 < job.items.count() < 30

        site.latency = 0
        work(job)

        assert job.status == "completed"
        assert set(states(job).values()) == {"saved"}
        assert Counter(path for path in site.paths() if path.endswith(".png")).most_common(1)[0][1] <= 2
        assert images_of(job).count() == 30

    @pytest.mark.skipif(sys.platform != "linux", reason="children die with their parents on Linux only")
    def test_a_worker_that_is_killed_in_the_middle_leaves_nothing_twice(self, site, staff, process_env):
        show_gallery(site, 40)
        site.latency = 0.1
        job = start_crawl(owner=staff, url=site.url())
        script = (
            "import django; django.setup();"
            "from imagehub.jobs.registry import get_kind; from imagehub.jobs.runner import run_next;"
            "run_next(get_kind('scraping'))"
        )
        environment = process_env | {
            "DJANGO_SETTINGS_MODULE": "imagehub.settings",
            "IMAGEHUB_SCRAPING_ALLOW_PRIVATE": "127.0.0.0/8",
        }
        worker = subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            cwd=django_settings.BASE_DIR,
            start_new_session=True,
        )
        wait_until(lambda: job.items.filter(state="saved").count() >= 15)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        wait_until(lambda: site.busy == 0)
        fetched = [path for path in site.paths() if path.endswith(".png")]
        assert 15 <= len(fetched) < 40
        ScrapeJob.objects.filter(pk=job.pk).update(lease_until="2020-01-01T00:00:00Z")
        reaper.reap()
        files = {Path(item.file_name) for item in job.items.filter(state="saved")}

        site.latency = 0
        work(job)

        assert (job.status, job.attempt) == ("completed", 2)
        assert set(states(job).values()) == {"saved"}
        assert (job.items.count(), images_of(job).count(), Image.objects.count()) == (40, 40, 40)
        again = Counter(path for path in site.paths() if path.endswith(".png"))
        # What was on its way when it was killed was no success, two of them at most.
        assert sum(again.values()) <= 42
        stored = {name.name for name in storage.walk(storage.IMAGES)}
        assert stored == set(Image.objects.values_list("storage_name", flat=True))
        assert files <= {Path(item.file_name) for item in job.items.all()}
        assert ScrapedPage.objects.filter(job=job).count() == 1


def test_a_crawl_of_which_nobody_knows_what_it_was_to_do_is_not_repeated(staff):
    job = ScrapeJobFactory(config={"from": "elsewhere"}, status="completed", finished_at=timezone.now())

    with pytest.raises(NotRepeatable):
        retry_crawl(job, owner=staff)


def test_what_comes_after_a_takedown_waits_also_where_it_was_looked_at_just_then(site, staff, monkeypatch):
    show_gallery(site, 1)
    job = start_crawl(owner=staff, url=site.url())
    vet = intake.vet_pictures

    def take_down_meanwhile(files, **options):
        vet(files, **options)
        ScrapeJob.objects.filter(pk=job.pk).update(needs_review=True)

    monkeypatch.setattr(intake, "vet_pictures", take_down_meanwhile)
    work(job)

    assert states(job) == {"/0.png": "review"}
    assert not Image.objects.exists()


def test_duplicates_of_a_reviewed_picture_know_its_image(site, other_site, staff):
    for one in (site, other_site):
        one.show("/1.png", drawing(1))
    job = work(
        start_crawl(owner=staff, urls=[site.url("/1.png"), other_site.url("/1.png")], needs_review=True)
    )
    waiting = job.items.get(state="review")
    assert job.items.get(state="duplicate").image is None

    reviewing.decide(job, approve=[waiting.pk], reject=[])
    reviewing.take_in_approved(job)

    assert {item.image for item in job.items.all()} == {Image.objects.get()}


def test_taking_in_and_deleting_the_album_do_not_wait_for_each_other(site, staff, monkeypatch):
    """Both want the album and the crawl: in another order each, PostgreSQL would end one of them."""
    show_gallery(site, 6)
    album = AlbumFactory()
    job = start_crawl(owner=staff, url=site.url(), album=album)
    begun = threading.Event()
    write = intake._write

    def slowly(*arguments):
        begun.set()
        time.sleep(0.5)
        return write(*arguments)

    monkeypatch.setattr(intake, "_write", slowly)
    worker = beside(lambda: run_next(get_kind("scraping")))
    assert begun.wait(30)
    delete_album(album)
    worker.join(timeout=60)

    job.refresh_from_db()
    assert (job.status, job.attempt) in {("failed", 1), ("completed", 1)}
    assert job.error_code in {"album_gone", ""}
