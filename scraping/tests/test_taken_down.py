"""What a takedown does to pictures that wait and to crawls that run, and that nothing comes back."""

import hashlib
import time

import pytest

from albums.models import Album, Image
from albums.services import (
    AlbumGone,
    delete_album,
    purge_images,
    quarantine_images,
    restore_images,
    trash_images,
)
from albums.tests.factories import AlbumFactory
from imagehub.accounts.models import AuditEntry
from imagehub.jobs.lease import Lease
from imagehub.jobs.registry import get_kind
from imagehub.jobs.runner import run_next
from scraping.models import ScrapedImage, ScrapeJob, address_key, domain_key
from scraping.services.crawls import cancel_crawl, retry_crawl, start_crawl
from scraping.services.folders import folder_of, thumbnails_of
from scraping.services.intake import look_and_take_in
from scraping.services.recording import Recorder
from scraping.services.reviewing import take_in_approved
from scraping.services.told import told
from scraping.tests.factories import ScrapedImageFactory, ScrapeJobFactory
from scraping.tests.reviews import reviewed_crawl, waiting_picture
from scraping.tests.sites import drawing
from scraping.tests.takedowns import queued, takedown

pytestmark = pytest.mark.django_db


@pytest.fixture
def _room(set_config):
    set_config("storage: {minimum_free_bytes: 0}")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_room")
class TestPicturesThatWait:
    @pytest.fixture
    def job(self) -> ScrapeJob:
        """A crawl of two hosts, of which each has a picture that is approved and one that is not decided about."""
        job = reviewed_crawl()
        for number, host in enumerate(["example.com", "example.com", "good.example", "good.example"]):
            url = f"https://{host}/{number}.png"
            reason = "approved" if number % 2 else ""
            item = waiting_picture(job, number, url=url, domain=domain_key(host), reason=reason)
            thumbnail = thumbnails_of(job) / f"{item.sha256}.webp"
            thumbnail.parent.mkdir(parents=True, exist_ok=True)
            thumbnail.write_bytes(b"x")
        return job

    def ends(self, job: ScrapeJob) -> list[str]:
        return [f"{item.state} {item.reason}".strip() for item in job.items.order_by("position")]

    def files(self, job: ScrapeJob) -> set[str]:
        return {
            path.stem for folder in (folder_of(job).pictures, thumbnails_of(job)) for path in folder.glob("*")
        }

    def test_are_only_listed_without_yes(self, job):
        report = takedown("--source-domain", "example.com")

        assert (report["counts"], report["quarantined"]) == ({"source": 2}, {})
        assert self.ends(job) == ["review", "review approved"] * 2
        assert len(self.files(job)) == 4

    def test_are_turned_away_and_never_taken_in(self, job):
        report = takedown("--source-domain", "example.com", "--yes", "--reason", "a complaint")

        assert report["quarantined"] == {"source": 2}
        assert self.ends(job) == ["filtered taken_down"] * 2 + ["review", "review approved"]
        assert self.files(job) == set(job.items.filter(state="review").values_list("sha256", flat=True))
        assert take_in_approved(job) == 1
        assert self.ends(job) == ["filtered taken_down"] * 2 + ["review", "saved"]
        entry = AuditEntry.objects.get(action="scrapejob.quarantine")
        gone = list(job.items.filter(state="filtered").order_by("pk").values_list("pk", flat=True))
        assert entry.target_id == str(job.pk)
        assert entry.after == {"reason": "a complaint", "count": 2, "items": gone}
        assert takedown("--source-domain", "example.com", "--yes")["counts"] == {}

    def test_leave_no_files_of_a_crawl_of_which_nothing_else_waits(self, job):
        job.items.filter(domain=domain_key("good.example")).delete()

        takedown("--source-domain", "example.com", "--yes")

        assert not folder_of(job).pictures.exists()
        assert not thumbnails_of(job).exists()

    def test_do_not_come_back_with_the_next_crawl(self, job):
        takedown("--source-domain", "example.com", "--yes")

        again = ScrapeJobFactory(album_name="cards")
        look_and_take_in(again, lay(again, 1, 3))

        assert self.ends(again) == ["filtered taken_down", "saved"]

    def test_name_no_file_elsewhere(self, job):
        stranger = folder_of(job).root / "aside.png"
        stranger.write_bytes(b"x")
        job.items.filter(position=0).update(sha256="../aside")

        takedown("--source-domain", "example.com", "--yes")

        assert stranger.exists()

    def test_that_a_cancelled_crawl_leaves_are_found_by_the_next_takedown(self):
        job = queued(host="example.com")
        takedown("--source-domain", "example.com", "--yes")
        waiting_picture(job, 1, domain=domain_key("example.com"), reason="approved")

        assert takedown("--source-domain", "example.com", "--yes")["quarantined"] == {"source": 1}
        assert self.ends(job) == ["filtered taken_down"]


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

    def test_brings_what_was_a_mistake_to_take_down_and_was_deleted_since(self):
        image = self.crawl(1).items.get().image_id
        quarantine_images([image], reason="a mistake")
        restore_images([image])
        trash_images([image])

        assert self.outcome(self.crawl(1)) == [("saved", "", True)]

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
