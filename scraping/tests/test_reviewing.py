"""Decisions on pictures: what is approved comes into the album once, what is rejected never does."""

from collections import Counter

import pytest

from albums.models import AlbumImage, Image
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.errors import Invalid
from imagehub.jobs.registry import get_kind
from imagehub.jobs.runner import run_next
from imagehub.storage import StorageFull
from imagehub.tests.together import at_once
from scraping import tasks
from scraping.models import ScrapedImage, ScrapeJob
from scraping.services import previews, reviewing
from scraping.services.crawls import start_crawl
from scraping.services.folders import folder_of, thumbnails_of
from scraping.services.recording import Recorder
from scraping.services.reviewing import Keep, NothingToReview, NothingToSettle, decide, settle
from scraping.tests.factories import ScrapedImageFactory, ScrapeJobFactory
from scraping.tests.reviews import reviewed_crawl, waiting_picture
from scraping.tests.sites import drawing

pytestmark = pytest.mark.django_db(transaction=True)


def keys(job: ScrapeJob) -> list[int]:
    return list(job.items.order_by("position").values_list("pk", flat=True))


def ends(job: ScrapeJob) -> list[str]:
    return [f"{item.state} {item.reason}".strip() for item in job.items.order_by("position")]


@pytest.fixture
def sent(monkeypatch) -> list[tuple]:
    """What was left to the cluster, which is nobody here."""
    messages = []
    monkeypatch.setattr("imagehub.jobs.queue.async_task", lambda *args, **_: messages.append(args))
    return messages


class TestDecisions:
    def test_what_is_rejected_is_filtered_and_what_is_approved_is_taken_in(self, sent):
        job = reviewed_crawl(3)
        first, second, third = keys(job)
        pictures = folder_of(job).pictures

        decide(job, approve=[first], reject=[second])

        assert ends(job) == ["review approved", "filtered rejected", "review"]
        assert sent == [("scraping.tasks.take_in_approved", str(job.pk))]
        assert tasks.take_in_approved(str(job.pk)) == 1
        assert ends(job) == ["saved", "filtered rejected", "review"]
        job.refresh_from_db()
        image = Image.objects.in_album(job.album).get()
        assert (job.album.name, job.images_saved) == ("Cards", 1)
        assert (image.source_kind, image.source_id, image.source_index) == ("scrape", job.pk, 0)
        assert job.items.get(pk=first).image == image
        assert pictures.exists()  # somebody has to look at the third one

        decide(job, approve=[], reject=[third])
        assert ends(job)[-1] == "filtered rejected"
        assert not pictures.exists()
        assert tasks.take_in_approved() == 0

    def test_the_files_of_a_crawl_that_goes_on_are_left_to_it(self, sent):
        job = ScrapeJobFactory(needs_review=True)
        item = waiting_picture(job, 0)

        decide(job, approve=[], reject=[item.pk])

        assert folder_of(job).pictures.exists()

    def test_a_decision_is_final(self, sent):
        job = reviewed_crawl(2)
        first, second = keys(job)
        decide(job, approve=[first], reject=[second])

        with pytest.raises(NothingToReview):
            decide(job, approve=[second], reject=[first])
        assert ends(job) == ["review approved", "filtered rejected"]

    def test_what_is_no_picture_of_the_crawl_is_named(self, sent):
        job, other = reviewed_crawl(2), reviewed_crawl(1)
        first, second = keys(job)

        with pytest.raises(Invalid) as refused:
            decide(job, approve=[first, keys(other)[0]], reject=[second, 2**70, first])

        faults = [(fault.pointer, fault.code) for fault in refused.value.faults]
        assert faults == [
            ("/approve/1", "unknown_item"),
            ("/reject/1", "unknown_item"),
            ("/reject/2", "contradiction"),
        ]
        with pytest.raises(Invalid) as refused:
            decide(job, approve=[], reject=[])
        assert refused.value.pointer == "/approve"
        assert ends(job) == ["review", "review"]
        assert sent == []

    def test_pictures_that_were_never_up_for_review_are_no_matter(self, sent):
        job = reviewed_crawl(1)
        there = ScrapedImageFactory(job=job, position=9, state="saved")

        with pytest.raises(NothingToReview):
            decide(job, approve=[], reject=[there.pk])
        decide(job, approve=[], reject=[there.pk, *keys(job)[:1]])

        assert ends(job) == ["filtered rejected", "saved"]

    def test_who_decided_what_is_in_the_audit_trail(self, sent):
        job = reviewed_crawl(3)
        first, second, third = keys(job)

        decide(job, approve=[third, first], reject=[second])

        entry = AuditEntry.objects.get(action="scrapejob.review")
        assert entry.target_id == str(job.pk)
        assert entry.after == {
            "approved": 2, "rejected": 1, "approved_items": [first, third], "rejected_items": [second],
        }  # fmt: skip


class TestTakingIn:
    def test_two_at_once_take_nothing_in_twice(self, sent, monkeypatch):
        monkeypatch.setattr(reviewing, "BATCH", 3)
        job = reviewed_crawl(8)
        decide(job, approve=keys(job), reject=[])

        taken = at_once(tasks.take_in_approved, [str(job.pk), str(job.pk), ""])

        assert sum(taken) == 8
        assert ends(job) == ["saved"] * 8
        job.refresh_from_db()
        assert job.images_saved == Image.objects.count() == AlbumImage.objects.count() == 8
        assert Counter(item.image_id for item in job.items.all()).most_common(1)[0][1] == 1

    def test_what_a_lost_worker_has_left_is_found_by_the_clock(self, sent, monkeypatch):
        job = reviewed_crawl(2)
        decide(job, approve=keys(job), reject=[])
        with monkeypatch.context() as patch:
            patch.setattr("scraping.services.intake._note", lambda *_: exec("raise SystemExit"))
            with pytest.raises(SystemExit):
                tasks.take_in_approved(str(job.pk))
        assert ends(job) == ["review approved"] * 2
        assert not Image.objects.exists()

        assert tasks.take_in_approved() == 2
        assert ends(job) == ["saved"] * 2

    def test_a_full_disk_lets_it_wait_and_keeps_no_other_crawl_waiting(self, sent, monkeypatch):
        full, other = reviewed_crawl(1), reviewed_crawl(0)
        waiting_picture(other, 5)
        for job in (full, other):
            decide(job, approve=keys(job), reject=[])
        take_in = reviewing.look_and_take_in

        def refuse(job, items, **options):
            if job.pk == full.pk:
                raise StorageFull("full")
            take_in(job, items, **options)

        monkeypatch.setattr(reviewing, "look_and_take_in", refuse)
        assert tasks.take_in_approved() == 1
        assert (ends(full), ends(other)) == (["review approved"], ["saved"])

    def test_files_that_are_damaged_or_gone_come_to_another_end(self, sent):
        job = reviewed_crawl(1)
        waiting_picture(job, 1, body=drawing(1)[:200])
        gone = waiting_picture(job, 2)
        (folder_of(job).pictures / gone.file_name).unlink()
        decide(job, approve=keys(job), reject=[])

        tasks.take_in_approved(str(job.pk))

        assert [end.partition(" ")[0] for end in ends(job)] == ["saved", "filtered", "filtered"]
        assert ends(job)[2] == "filtered file_gone"
        assert not folder_of(job).pictures.exists()

    def test_a_crawl_under_review_brings_nothing_by_itself(self, quick, site, staff, sent):
        site.show("/", "<img src=/0.png alt=Zero><img src=/1.png>")
        for number in range(2):
            site.show(f"/{number}.png", drawing(number))
        job = start_crawl(owner=staff, url=site.url(), needs_review=True)

        assert run_next(get_kind("scraping"))

        job.refresh_from_db()
        assert (job.status, job.images_saved, job.album) == ("completed", 0, None)
        decide(job, approve=list(reviewing.undecided(job).values_list("pk", flat=True)), reject=[])
        assert tasks.take_in_approved(str(job.pk)) == 2
        job.refresh_from_db()
        assert job.images_saved == 2
        assert Image.objects.in_album(job.album).get(labels__text="Zero")
        assert not folder_of(job).pictures.exists()

    def test_a_crawl_has_found_something_be_all_of_it_rejected_already(
        self, quick, site, staff, sent, monkeypatch
    ):
        site.show("/", "<img src=/0.png>")
        site.show("/0.png", drawing(0))
        job = start_crawl(owner=staff, url=site.url(), needs_review=True)
        finish = Recorder.finish

        def finish_and_reject(recorder):
            finish(recorder)
            decide(job, approve=[], reject=keys(job))

        monkeypatch.setattr(Recorder, "finish", finish_and_reject)
        assert run_next(get_kind("scraping"))

        job.refresh_from_db()
        assert (job.status, job.end_reason, ends(job)) == ("completed", "finished", ["filtered rejected"])
        assert not folder_of(job).pictures.exists()


class TestPreviews:
    def test_a_thumbnail_is_rendered_once(self, monkeypatch):
        item = waiting_picture(reviewed_crawl(), 0)
        first = previews.thumbnail_of(item)
        monkeypatch.setattr(previews, "vet", None)

        assert first[:4] == b"RIFF"
        assert previews.thumbnail_of(item) == first
        assert [path.name for path in thumbnails_of(item.job).iterdir()] == [f"{item.sha256}.webp"]

    def test_no_link_makes_a_thumbnail_of_another_file(self, tmp_path):
        item = waiting_picture(reviewed_crawl(), 0)
        (tmp_path / "secret").write_text("hush")
        for folder in (folder_of(item.job).root / "thumbnails", thumbnails_of(item.job)):
            folder.mkdir(parents=True)
            (folder / f"{item.sha256}.webp").symlink_to(tmp_path / "secret")

        assert previews.thumbnail_of(item)[:4] == b"RIFF"
        assert not thumbnails_of(item.job).is_relative_to(folder_of(item.job).root)
        assert not (thumbnails_of(item.job) / f"{item.sha256}.webp").is_symlink()
        assert (tmp_path / "secret").read_text() == "hush"

    def test_nothing_is_kept_of_what_is_decided_meanwhile(self, monkeypatch):
        item = waiting_picture(reviewed_crawl(), 0)
        render = previews._render

        def slowly(path, **options):
            content = render(path, **options)
            decide(item.job, approve=[], reject=[item.pk])
            reviewing._forget_files(item.job)
            return content

        monkeypatch.setattr(previews, "_render", slowly)

        assert previews.thumbnail_of(item)[:4] == b"RIFF"
        assert not thumbnails_of(item.job).exists()

    def test_what_the_crawler_says_names_no_other_file(self, tmp_path):
        item = waiting_picture(reviewed_crawl(), 0)
        (folder_of(item.job).root / "other.png").write_bytes(drawing(3))
        item.sha256 = "../other"

        with pytest.raises(previews.PictureGone):
            previews.thumbnail_of(item)

    def test_without_a_folder_nothing_is_kept(self):
        item = ScrapedImageFactory(job=reviewed_crawl(), state="review")

        with pytest.raises(previews.PictureGone):
            previews.thumbnail_of(item)
        assert not folder_of(item.job).root.exists()


class TestLookalikes:
    def pair(self) -> ScrapedImage:
        old, new = ImageFactory(name="old"), ImageFactory(name="new")
        AlbumFactory(images=[old, new])
        return ScrapedImageFactory(image=new, resembles=old)

    @pytest.mark.parametrize(
        ("keep", "left"), [(Keep.BOTH, {"old", "new"}), (Keep.NEW, {"new"}), (Keep.OLD, {"old"})]
    )
    def test_what_is_not_kept_goes_into_the_trash(self, keep, left):
        item = self.pair()
        assert list(reviewing.lookalikes(item.job)) == [item]

        settle(item, keep=keep)

        assert set(Image.objects.live().values_list("name", flat=True)) == left
        assert not reviewing.lookalikes(item.job).exists()
        assert AuditEntry.objects.get(action="scrapejob.settle").after["keep"] == keep
        with pytest.raises(NothingToSettle):
            settle(item, keep=Keep.BOTH)

    def test_with_one_of_them_gone_there_is_nothing_to_choose(self):
        item = self.pair()
        item.resembles.delete()

        assert not reviewing.lookalikes(item.job).exists()
        with pytest.raises(NothingToSettle):
            settle(item, keep=Keep.OLD)
        assert Image.objects.live().get().name == "new"
