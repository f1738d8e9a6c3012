"""Purges of crawls: real folders, real rows, and what breaks off or comes in between."""

import os
import shutil
import threading
import time
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from albums.tests.factories import ImageFactory
from imagehub import roots
from imagehub.jobs.models import JobStatus
from imagehub.operations import purges, walking
from imagehub.operations.tests.killing import killed_at
from scraping.models import ScrapedImage, ScrapedPage, ScrapeJob
from scraping.services import purging
from scraping.services.folders import folder_of, log_of, thumbnails_of
from scraping.tests.factories import ScrapedImageFactory, ScrapedPageFactory, ScrapeJobFactory

pytestmark = pytest.mark.django_db


def crawl(days=40, status=JobStatus.COMPLETED, *, has_folder=True, **fields) -> ScrapeJob:
    """A crawl that ended so long ago, with a picture in its folder."""
    then = timezone.now() - timedelta(days=days)
    job = ScrapeJobFactory(status=status, started_at=then, finished_at=then, **fields)
    if has_folder:
        folder_of(job).pictures.mkdir(parents=True)
        (folder_of(job).pictures / "a.png").write_bytes(b"x" * 1000)
        log_of(job).write_text("y" * 24)
    return job


def purge(days=30, **options) -> purging.Freed:
    return purging.purge_crawls(cutoff=timezone.now() - timedelta(days=days), **options)


def is_purged(job) -> bool:
    job.refresh_from_db()
    return job.purged_at is not None


def tree() -> list[str]:
    return sorted(str(path.relative_to(roots.scraping_root())) for path in roots.scraping_root().rglob("*"))


def test_deletes_files_and_addresses_that_led_nowhere_and_keeps_where_images_are_from():
    job = crawl()
    kept = ScrapedImageFactory(job=job, image=ImageFactory())
    there = ScrapedImageFactory(job=job, image=ImageFactory(deleted_at=timezone.now()), state="duplicate")
    for state in ("filtered", "failed", "skipped", "robots"):
        ScrapedImageFactory(job=job, state=state, sha256="")
    ScrapedPageFactory.create_batch(3, job=job)
    neighbour = ScrapedPageFactory(job=crawl(days=10)).job

    freed = purge()

    assert vars(freed) == {
        "crawls": 1,
        "items": 4,
        "pages": 3,
        "expired": 0,
        "kept": 0,
        "bytes": 1024,
        "failed": 0,
        "errors": [],
        "strays": 0,
    }
    assert set(ScrapedImage.objects.all()) == {kept, there}
    assert [page.job for page in ScrapedPage.objects.all()] == [neighbour]
    assert not folder_of(job).root.exists()
    assert is_purged(job)
    assert (job.status, job.name, job.config["start_urls"]) == (
        "completed",
        job.name,
        ["https://gallery.example/"],
    )
    assert folder_of(neighbour).pictures.exists()
    assert not is_purged(neighbour)
    assert vars(purge()) == vars(purging.Freed())


def test_keeps_pages_that_have_led_to_where_an_image_stands():
    job = crawl()
    ScrapedImageFactory(job=job, image=ImageFactory(), page_url="https://good.example/p")
    ScrapedImageFactory(job=job, state="failed", page_url="https://good.example/other", sha256="")
    way = ScrapedPageFactory(job=job, url="https://bad.example/p", final_url="https://good.example/p")
    ScrapedPageFactory(job=job, url="https://good.example/p")
    ScrapedPageFactory(job=job, url="https://bad.example/other", final_url="https://good.example/other")
    ScrapedPageFactory(job=job, url="https://bad.example/nowhere", final_url="")
    assert purge(is_dry_run=True).pages == 3

    assert purge().pages == 3

    assert list(ScrapedPage.objects.all()) == [way]
    assert is_purged(job)


@pytest.mark.parametrize("status", JobStatus.ACTIVE)
def test_never_touches_a_crawl_that_has_not_ended(status, monkeypatch):
    job = crawl(status=JobStatus.FAILED)
    ScrapedPageFactory(job=job)
    # Between the look and the lock somebody has it again: no kind of crawl does that now.
    is_running = status == JobStatus.RUNNING
    changes = {
        "status": status,
        "finished_at": None,
        "token": job.pk if is_running else None,
        "lease_until": timezone.now() if is_running else None,
    }
    wanted = purging._vetted

    def meanwhile(path):
        ScrapeJob.objects.filter(pk=job.pk).update(**changes)
        return wanted(path)

    monkeypatch.setattr(purging, "_vetted", meanwhile)
    assert vars(purge(days=0)) == vars(purging.Freed())
    monkeypatch.undo()
    assert vars(purge(days=0)) == vars(purging.Freed())

    assert folder_of(job).pictures.exists()
    assert ScrapedPage.objects.exists()
    assert not is_purged(job)


def test_a_rehearsal_touches_nothing_and_tells_the_same():
    job = crawl(needs_review=True)
    ScrapedImageFactory(job=job, state="review")
    ScrapedImageFactory(job=job, state="filtered")
    ScrapedPageFactory(job=job)
    before = tree(), list(ScrapedImage.objects.values()), list(ScrapeJob.objects.values())

    rehearsed = purge(is_dry_run=True)

    assert (tree(), list(ScrapedImage.objects.values()), list(ScrapeJob.objects.values())) == before
    assert (rehearsed.crawls, rehearsed.items, rehearsed.expired, rehearsed.bytes) == (1, 2, 1, 1024)
    assert purge() == rehearsed


def test_thumbnails_go_as_well():
    job = crawl()
    thumbnails_of(job).mkdir(parents=True)
    (thumbnails_of(job) / "a.webp").write_bytes(b"x" * 500)

    assert purge(is_dry_run=True).bytes == 1524
    assert purge().bytes == 1524
    assert tree() == ["jobs", "previews"]


class TestReview:
    def test_pictures_that_nobody_has_decided_about_go(self, monkeypatch):
        job = crawl(needs_review=True)
        item = ScrapedImageFactory(job=job, state="review")
        monkeypatch.setattr(purging, "_unused", lambda job: ScrapedImage.objects.none())

        assert purge().expired == 1
        item.refresh_from_db()
        assert (item.state, item.reason) == ("filtered", "review_expired")
        monkeypatch.undo()
        ScrapeJob.objects.update(purged_at=None)
        purge()
        assert not ScrapedImage.objects.exists()

    @pytest.mark.parametrize("is_dry_run", [True, False])
    def test_a_crawl_whose_approved_pictures_are_about_to_be_taken_in_is_left_alone(self, is_dry_run):
        job = crawl(needs_review=True)
        ScrapedImageFactory(job=job, state="review", reason="approved")
        ScrapedImageFactory(job=job, state="review")

        freed = purge(is_dry_run=is_dry_run)

        assert (freed.kept, freed.crawls, freed.expired) == (1, 0, 0)
        assert folder_of(job).pictures.exists()
        assert job.items.filter(state="review").count() == 2


class TestAtTheSameTime:
    pytestmark = pytest.mark.django_db(transaction=True)

    def test_a_decision_that_is_being_written_counts(self):
        job = crawl(needs_review=True)
        item = ScrapedImageFactory(job=job, state="review")
        is_written = threading.Event()

        def approve():
            with transaction.atomic():
                ScrapeJob.objects.select_for_update(no_key=True).get(pk=job.pk)
                ScrapedImage.objects.filter(pk=item.pk).update(reason="approved")
                is_written.set()
                time.sleep(0.3)
            connections.close_all()

        somebody = threading.Thread(target=approve)
        somebody.start()
        assert is_written.wait(10)
        freed = purge()
        somebody.join()

        item.refresh_from_db()
        assert (freed.kept, freed.expired, item.state) == (1, 0, "review")
        assert folder_of(job).pictures.exists()


class TestWhatLiesElsewhere:
    @pytest.fixture
    def outside(self, tmp_path):
        outside = tmp_path / "elsewhere"
        outside.mkdir()
        (outside / "precious").write_text("x")
        return outside

    @pytest.mark.parametrize("is_dry_run", [True, False])
    def test_is_never_reached_by_a_link_in_place_of_a_folder(self, outside, is_dry_run, caplog):
        job, other = crawl(has_folder=False), crawl()
        folder_of(job).root.symlink_to(outside)
        ScrapedPageFactory(job=job)

        freed = purge(is_dry_run=is_dry_run)

        assert (freed.crawls, freed.failed) == (1, 1)
        assert [path.name for path in outside.iterdir()] == ["precious"]
        assert folder_of(job).root.is_symlink()
        assert ScrapedPage.objects.filter(job=job).exists()
        assert not is_purged(job)
        assert is_purged(other) is not is_dry_run
        assert str(outside) not in caplog.text

    def test_nor_by_one_on_the_way_there(self, outside):
        job = crawl(has_folder=False)
        (outside / str(job.pk)).mkdir()
        folder_of(job).root.parent.parent.mkdir(parents=True)
        folder_of(job).root.parent.symlink_to(outside)

        assert purge().failed == 1
        assert (outside / str(job.pk)).exists()

    def test_nor_by_one_inside(self, outside):
        job = crawl()
        (folder_of(job).root / "link").symlink_to(outside)
        (folder_of(job).pictures / "file").symlink_to(outside / "precious")

        assert (purge().crawls, (outside / "precious").read_text()) == (1, "x")

    @pytest.mark.parametrize("folder", ["../elsewhere", "jobs/../../elsewhere", "/etc", "", "."])
    def test_nor_by_a_name_that_leads_out(self, outside, folder, monkeypatch):
        crawl(has_folder=False)
        (roots.scraping_root() / "jobs").mkdir(parents=True)
        monkeypatch.setattr(ScrapeJob, "folder", folder)

        assert purge().failed == 1
        assert (outside / "precious").exists()
        assert roots.scraping_root().exists()

    def test_a_file_in_place_of_a_folder_is_refused(self):
        job = crawl(has_folder=False)
        folder_of(job).root.parent.mkdir(parents=True)
        folder_of(job).root.write_text("x")

        assert purge().failed == 1
        assert folder_of(job).root.exists()


class TestAPurgeThatBreaksOff:
    """Killed at any place: nothing that is asked of the disk or the database after it happens."""

    @pytest.mark.parametrize("place", ["_expire", "delete_folder", "_unused", "_pages"])
    def test_is_gone_on_with_by_the_next(self, place, monkeypatch):
        job = crawl(needs_review=True)
        image = ScrapedImageFactory(job=job, image=ImageFactory())
        ScrapedImageFactory(job=job, state="review")
        ScrapedPageFactory(job=job)
        calls = []

        def killed(*args):
            calls.append(args)
            if place == "delete_folder" and len(calls) == 1:
                return  # there is nothing of an earlier purge
            raise KeyboardInterrupt

        with monkeypatch.context() as context:
            context.setattr(purging, place, killed)
            with pytest.raises(KeyboardInterrupt):
                purge()
        assert not is_purged(job)

        assert purge().crawls == 1
        assert is_purged(job)
        assert tree() == ["jobs"]
        assert list(ScrapedImage.objects.all()) == [image]
        assert not ScrapedPage.objects.exists()

    def test_what_cannot_be_deleted_is_left_to_the_next_and_keeps_no_other(self, monkeypatch):
        stubborn, other = crawl(days=50), crawl()
        ScrapedPageFactory(job=stubborn)
        delete = shutil.rmtree

        def stumbles(path):
            if str(stubborn.pk) in str(path):
                raise OSError(5, "Input/output error", str(path))
            delete(path)

        with monkeypatch.context() as context:
            context.setattr(shutil, "rmtree", stumbles)
            done = purges.purge_now("scraping", older_than_days=30)

        assert (done.state, done.result["crawls"], done.result["failed"]) == ("failed", 1, 1)
        assert done.result["problem"] == "Of 1 crawls not all could be deleted"
        assert (is_purged(stubborn), is_purged(other)) == (False, True)

        again = purges.purge_now("scraping", older_than_days=30)
        assert (again.state, again.result["bytes"], again.result["pages"]) == ("done", 1024, 1)
        assert is_purged(stubborn)

    @pytest.mark.django_db(transaction=True)
    def test_that_is_killed_before_the_rows_say_so_has_moved_nothing(self, monkeypatch):
        job = crawl(needs_review=True)
        item = ScrapedImageFactory(job=job, state="review")

        killed_at(type(connections["default"]), "_commit", purge)
        assert folder_of(job).pictures.exists()
        ScrapedImage.objects.filter(pk=item.pk).update(reason="approved")

        assert purge().kept == 1
        assert folder_of(job).pictures.exists()

    @pytest.mark.django_db(transaction=True)
    def test_that_is_killed_after_it_is_gone_on_with(self):
        job = crawl(needs_review=True)
        ScrapedImageFactory(job=job, state="review")

        killed_at(type(folder_of(job).root), "rename", purge)
        assert not job.items.filter(state="review").exists()

        assert purge().crawls == 1
        assert tree() == ["jobs"]

    def test_two_at_once_do_it_once(self, monkeypatch):
        job = crawl()
        ScrapedPageFactory(job=job)
        delete, others = purging.delete_folder, []

        def meanwhile(path):
            if not others:
                others.append(None)
                others.append(purge())
            delete(path)

        monkeypatch.setattr(purging, "delete_folder", meanwhile)
        freed = purge()

        assert freed.crawls + others[1].crawls == 1
        assert (freed.failed, others[1].failed) == (0, 0)
        assert is_purged(job)


@pytest.mark.parametrize("is_mount_point_left", [True, False])
def test_a_disk_that_is_not_there_refuses_the_purge(is_mount_point_left):
    job = crawl(needs_review=True)
    ScrapedImageFactory(job=job, state="review")
    ScrapedPageFactory(job=job)
    shutil.rmtree(roots.scraping_root())
    if is_mount_point_left:
        roots.scraping_root().mkdir()

    refused = purges.purge_now("scraping", older_than_days=30)

    assert refused.state == "failed"
    assert "scraping root is missing or empty" in refused.result["problem"]
    assert job.items.filter(state="review").count() == ScrapedPage.objects.count() == 1
    assert not is_purged(job)


@pytest.mark.parametrize("is_dry_run", [True, False])
def test_a_crawl_whose_pictures_wait_and_are_missing_is_not_touched(is_dry_run):
    job, other = crawl(needs_review=True), crawl()
    ScrapedImageFactory(job=job, state="review")
    shutil.rmtree(folder_of(job).root)

    freed = purge(is_dry_run=is_dry_run)

    assert (freed.failed, freed.crawls) == (1, 1)
    assert job.items.filter(state="review").exists()
    assert is_purged(other) is not is_dry_run
    assert not is_purged(job)


def test_folders_that_no_crawl_has_are_counted_and_stay():
    """The database may be the wrong one."""
    job = crawl()
    os.utime(folder_of(job).root, (0, 0))
    ScrapeJob.objects.all().delete()

    assert (purge().strays, purge(is_dry_run=True).strays) == (1, 1)
    assert folder_of(job).pictures.exists()


def test_rows_are_deleted_some_at_a_time(monkeypatch):
    monkeypatch.setattr(walking, "BATCH", 2)
    job = crawl()
    for number in range(5):
        ScrapedImageFactory(job=job, position=number, state="filtered")
    beats = []

    freed = purge(on_progress=lambda: beats.append(1))

    assert (freed.items, ScrapedImage.objects.count()) == (5, 0)
    assert len(beats) >= 3


def test_stops_at_a_limit_with_what_ended_first():
    late, early = crawl(days=40), crawl(days=60)

    assert purge(limit=1).crawls == 1
    assert (is_purged(early), is_purged(late)) == (True, False)
