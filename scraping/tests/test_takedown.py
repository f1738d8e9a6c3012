"""Taking down what was fetched from a host or a page: all of it, nothing else, and for good."""

import hashlib
import json
import time
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from albums.models import Album, Image
from albums.services import (
    AlbumGone,
    delete_album,
    purge_images,
    quarantine_images,
    restore_images,
    trash_images,
)
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.jobs.lease import Lease
from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import get_kind
from imagehub.jobs.runner import run_next
from scraping.models import ScrapedImage, ScrapeJob, address_key, domain_key
from scraping.services.crawls import cancel_crawl, retry_crawl, start_crawl
from scraping.services.folders import folder_of
from scraping.services.intake import look_and_take_in
from scraping.services.plans import Plan, config_of
from scraping.services.recording import Recorder
from scraping.services.told import told
from scraping.tests.factories import ScrapedImageFactory, ScrapedPageFactory, ScrapeJobFactory
from scraping.tests.sites import drawing

pytestmark = pytest.mark.django_db


@pytest.fixture
def _room(set_config):
    set_config("storage: {minimum_free_bytes: 0}")


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


class TestWhatIsFoundAtAHost:
    def test_is_what_was_fetched_from_it_or_below_it_or_shown_there(self):
        of_host = fetched("https://example.com/1.png")
        below = fetched("https://cdn.static.example.com/1.png")
        shown = fetched(page_url="https://www.example.com/page")
        fetched("https://notexample.com/1.png")
        fetched("https://examples.com/1.png")
        fetched("https://example.com.evil.example/1.png")
        fetched("https://example.community/1.png")

        assert found("--source-domain", "example.com") == ids(of_host, below, shown)
        assert found("--source-domain", "static.example.com") == ids(below)
        assert found("--source-domain", "com.example") == set()

    @pytest.mark.parametrize(
        "spelling", ["EXAMPLE.com.", " example.com:8443 ", "*.example.com", ".example.com", "ｅxample．com"]
    )
    def test_however_the_host_is_spelled(self, spelling):
        image = fetched("https://example.com/1.png")

        assert found("--source-domain", spelling) == ids(image)

    @pytest.mark.parametrize("stored", ["bücher.example", "XN--bcher-KVA.example.", "www.BÜCHER.example"])
    @pytest.mark.parametrize("asked", ["Bücher.example", "xn--bcher-kva.example"])
    def test_in_any_script(self, stored, asked):
        image = ImageFactory()
        ScrapedImageFactory(job=ended(), image=image, domain=domain_key(stored))

        assert found("--source-domain", asked) == ids(image)

    def test_an_address_of_the_internet_is_that_one_alone(self):
        four, six = fetched("http://93.184.216.34:8080/1.png"), ImageFactory()
        ScrapedImageFactory(job=ended(), image=six, domain=domain_key("2001:db8:0::1"))

        assert found("--source-domain", "93.184.216.34") == ids(four)
        for spelling in ("2001:DB8::1", "[2001:db8::1]", "[2001:db8::1]:443"):
            assert found("--source-domain", spelling) == ids(six)

    @pytest.mark.parametrize("written", ["", ".", "https://example.com/", "exa mple.com", "93.184", "a/b"])
    def test_what_is_no_host_is_refused(self, written):
        with pytest.raises(CommandError, match="no host"):
            takedown("--source-domain", written)

    def test_is_what_redirects_have_led_to(self):
        image = fetched("https://short.example/1", final_url="https://cdn.example.com:8443/1.png")
        fetched("https://short.example/2", final_url="https://short.example/example.com/2.png")

        assert found("--source-domain", "example.com") == ids(image)

    def test_is_what_the_library_had_already_and_was_met_there(self):
        mine = ImageFactory(public=True)
        fetched("https://example.com/1.png", image=mine, state="duplicate", reason="in_library")
        ScrapedImageFactory(job=ended(), domain=domain_key("example.com"), state="filtered")

        assert found("--source-domain", "example.com") == ids(mine)

    def test_is_what_crawls_of_it_have_brought_that_left_no_addresses(self):
        imported, other = ended(host="www.example.com"), ended(host="notexample.com")
        image, _ = (
            ImageFactory(source_kind=Image.SourceKind.SCRAPE, source_id=job.pk) for job in (imported, other)
        )
        known = ImageFactory(
            source_kind=Image.SourceKind.SCRAPE, source_id=imported.pk, source_index=1, public=True
        )
        fetched(image=known)

        assert found("--source-domain", "example.com") == ids(image)

    def test_is_each_crawl_that_is_there_still(self):
        there = queued(host="www.example.com", config=plan("https://www.example.com/"))
        sent = queued(config=plan("https://gallery.example/", image_urls=["https://example.com/1.png"]))
        met, read = queued(), queued()
        ScrapedImageFactory(job=met, domain=domain_key("example.com"), state="failed")
        ScrapedPageFactory(job=read, domain=domain_key("example.com"))
        queued(host="notexample.com", config=plan("https://notexample.com/"))
        ended(host="example.com", config=plan("https://example.com/"))

        assert found("--source-domain", "example.com") == ids(there, sent, met, read)


class TestWhatIsFoundOnAPage:
    def test_is_what_it_shows_and_nothing_of_the_pages_beside_it(self):
        image = fetched(page_url="https://example.com/a?id=1")
        fetched(page_url="https://example.com/a?id=2")
        fetched(page_url="https://example.com/a")
        fetched(page_url="https://example.com/a?id=1&x=2")

        for spelling in ("https://example.com/a?id=1", "HTTPS://EXAMPLE.com:443/a?id=1#top"):
            assert found("--source-page", spelling) == ids(image)

    def test_is_what_it_shows_where_it_has_moved_to(self):
        image = fetched(page_url="https://example.com/new")
        ScrapedPageFactory(
            job=ended(),
            url="https://old.example/",
            domain=domain_key("old.example"),
            final_url="https://example.com/new",
        )

        assert found("--source-page", "https://old.example/") == ids(image)

    def test_is_the_picture_that_it_is(self):
        image = fetched("https://example.com/1.png")
        moved = fetched("https://short.example/1", final_url="https://example.com/1.png")

        assert found("--source-page", "https://example.com/1.png") == ids(image, moved)

    def test_is_each_crawl_that_reads_it(self):
        sent = queued(config=plan("https://example.com/a"))
        read = queued()
        ScrapedPageFactory(job=read, url="https://example.com/a", domain=domain_key("example.com"))
        queued(config=plan("https://example.com/"))

        assert found("--source-page", "https://example.com/a") == ids(sent, read)

    @pytest.mark.parametrize("written", ["example.com/a", "ftp://example.com/a", "https:///a", "https://[a"])
    def test_what_is_no_address_is_refused(self, written):
        with pytest.raises(CommandError, match="whole address"):
            takedown("--source-page", written)


class TestATakedown:
    def test_quarantines_pictures_and_cancels_crawls(self):
        image, other = fetched("https://example.com/1.png"), fetched()
        job = queued(host="example.com")

        report = takedown("--source-domain", "example.com", "--yes", "--reason", "asked by the artist")

        assert report["quarantined"] == {"scrape_job": 1, "image": 1}
        image.refresh_from_db()
        job.refresh_from_db()
        other.refresh_from_db()
        assert (image.visibility, image.deleted_at is not None) == ("private", True)
        assert (job.status, other.deleted_at) == (JobStatus.CANCELLED, None)
        entry = AuditEntry.objects.get(action="scrapejob.cancel")
        assert (entry.before, entry.after) == ({"status": "queued"}, {"reason": "asked by the artist"})
        assert takedown("--source-domain", "example.com", "--yes")["quarantined"] == {"image": 0}

    def test_notes_no_query_of_a_page(self):
        image = fetched(page_url="https://example.com/a?sig=4711")

        takedown("--source-page", "https://example.com/a?sig=4711", "--yes")

        entry = AuditEntry.objects.get(target_id=str(image.pk))
        assert entry.after["reason"] == "takedown of page https://example.com/a"

    def test_leaves_what_the_same_crawl_has_brought_from_elsewhere(self):
        job = queued(host="example.com")
        elsewhere = fetched(job=job)

        takedown("--source-domain", "example.com", "--yes")

        elsewhere.refresh_from_db()
        assert elsewhere.deleted_at is None


def event_of(number: int, **fields) -> dict:
    """What a crawler tells of a picture that it has kept."""
    body = drawing(number)
    return {
        "event": "item",
        "url": f"https://example.com/{number}.png",
        "state": "saved",
        "at": time.time(),
        "sha256": hashlib.sha256(body).hexdigest(),
        "format": "png",
        "width": 240,
        "height": 180,
        "size_bytes": len(body),
    } | fields


def lay(job: ScrapeJob, *numbers: int) -> list[ScrapedImage]:
    """Leave files as a crawler does, and return their rows, unsaved."""
    folder = folder_of(job).pictures
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number in numbers:
        event = event_of(number)
        (folder / f"{event['sha256']}.png").write_bytes(drawing(number))
        items.append(
            ScrapedImageFactory.build(
                job=job,
                position=number,
                key=address_key(event["url"]),
                **{name: event[name] for name in ("url", "state", "sha256", "format")},
            )
        )
    return items


@pytest.mark.usefixtures("_room")
class TestTheNextCrawl:
    def crawl(self, *numbers: int) -> ScrapeJob:
        job = ScrapeJobFactory(album_name="cards")
        look_and_take_in(job, lay(job, *numbers))
        return job

    def outcome(self, job: ScrapeJob) -> list[tuple[str, str, bool]]:
        items = job.items.order_by("position")
        return [(item.state, item.reason, item.image is not None) for item in items]

    def test_does_not_bring_the_same_picture_again(self):
        first = self.crawl(1)
        quarantine_images([first.items.get().image_id], reason="a complaint")

        again = self.crawl(1, 2)

        assert self.outcome(again) == [("filtered", "taken_down", False), ("saved", "", True)]
        again.refresh_from_db()
        assert (again.images_saved, again.album.total_images) == (1, 1)
        assert Image.objects.live().count() == 1

    def test_makes_no_album_for_nothing(self):
        quarantine_images([self.crawl(1).items.get().image_id], reason="a complaint")

        again = self.crawl(1)

        again.refresh_from_db()
        assert (again.album, Album.objects.count()) == (None, 1)

    def test_remembers_it_when_the_trash_is_empty(self):
        image = self.crawl(1).items.get().image_id
        quarantine_images([image], reason="a complaint")
        purge_images([image])

        assert self.outcome(self.crawl(1)) == [("filtered", "taken_down", False)]

    def test_does_not_bring_what_had_been_deleted_before(self):
        image = self.crawl(1).items.get().image_id
        trash_images([image])
        assert [quarantine_images([image], reason="a complaint") for _ in range(2)] == [1, 0]

        assert self.outcome(self.crawl(1)) == [("filtered", "taken_down", False)]

    def test_brings_what_was_a_mistake_to_take_down(self):
        image = self.crawl(1).items.get().image_id
        quarantine_images([image], reason="a mistake")
        restore_images([image])

        assert self.outcome(self.crawl(1)) == [("duplicate", "in_library", True)]

    def test_brings_what_was_only_deleted(self):
        trash_images([self.crawl(1).items.get().image_id])

        assert self.outcome(self.crawl(1)) == [("saved", "", True)]


@pytest.mark.usefixtures("_room")
class TestAnAlbumThatIsDeleted:
    def test_while_pictures_come_ends_the_crawl(self):
        job = ScrapeJobFactory(album_name="cards")
        look_and_take_in(job, lay(job, 1))
        delete_album(job.album)

        with pytest.raises(AlbumGone):
            look_and_take_in(job, lay(job, 2))

        assert (Album.objects.count(), Image.objects.count()) == (0, 1)

    def test_is_made_anew_for_what_is_approved_afterwards(self):
        job = ScrapeJobFactory(album=AlbumFactory(), name="cards")
        delete_album(job.album)
        job = ScrapeJob.objects.get()
        cancel_crawl(job)

        look_and_take_in(job, lay(job, 1))

        assert job.album.name == "cards"
        assert Image.objects.in_album(job.album).count() == 1

    def test_is_made_anew_by_a_retry(self):
        job = ScrapeJobFactory(album=AlbumFactory(), name="cards")
        cancel_crawl(job)
        delete_album(job.album)

        again = retry_crawl(ScrapeJob.objects.get(), owner=job.owner)

        assert (again.album, again.album_name) == (None, "cards")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
class TestACrawlThatRuns:
    def test_asks_nobody_for_an_album_that_is_gone(self, site, staff):
        album = AlbumFactory()
        start_crawl(owner=staff, url=site.url(), album=album)
        delete_album(album)

        assert run_next(get_kind("scraping"))

        job = ScrapeJob.objects.get()
        assert (job.status, job.error_code) == ("failed", "album_gone")
        assert site.paths() == []

    def test_lets_people_look_at_what_it_brings_after_a_takedown(self):
        ScrapeJob.objects.filter(pk=ScrapeJobFactory(album_name="cards", host="example.com").pk).enqueue()
        job = ScrapeJob.objects.claim(worker="w")
        lay(job, 1, 2)
        recorder = Recorder(job, Lease(job))
        recorder.start()
        recorder.take(told(event_of(1)))
        deadline = time.monotonic() + 20
        while not Image.objects.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

        takedown("--source-domain", "example.com", "--yes")
        recorder.take(told(event_of(2)))
        recorder.finish()

        states = job.items.order_by("position").values_list("state", flat=True)
        assert states[0] == "saved"
        assert states[1] in {"review", "skipped"}  # whether it was looked at before the crawl knew
        assert not Image.objects.live().exists()
        job.refresh_from_db()
        assert (job.status, job.cancel_requested_at is not None) == ("running", True)
