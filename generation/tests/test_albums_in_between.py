"""Albums that are deleted or merged while a picture for them is made: it is kept, and goes where it belongs."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from django.db import connections, transaction

from albums.models import Image
from albums.services import delete_album, merge_albums
from albums.services.albums import lock_album
from albums.tests.factories import AlbumFactory, staged
from generation import services
from generation.models import GenerationJob
from generation.services import making
from generation.tests.factories import GenerationJobFactory
from imagehub.jobs.lease import Lease
from imagehub.jobs.models import JobStatus

pytestmark = pytest.mark.django_db(transaction=True)

UNTIL_THE_WORKER_WAITS = 0.3


@pytest.fixture
def album():
    return AlbumFactory()


@pytest.fixture
def rendered(monkeypatch, tmp_path):
    """Stand in for the engine, and tell when the picture is there."""
    done = Event()

    def make(production, image):
        shutil.copy(staged(tmp_path), production._file(image))
        production._made = making._Made(image, dict)
        done.set()

    monkeypatch.setattr(making._Production, "_make", make)
    return done


@pytest.fixture
def work(album, rendered):
    """Make the picture of a job for the album while somebody holds the album's lock, and then does something to it."""
    GenerationJobFactory(album=album)
    GenerationJob.objects.enqueue()
    job = GenerationJob.objects.claim(worker="test")

    def meanwhile(act):
        locked = Event()

        def somebody():
            try:
                with transaction.atomic():
                    lock_album(album)
                    locked.set()
                    time.sleep(UNTIL_THE_WORKER_WAITS)
                    act()
            finally:
                connections.close_all()

        def worker():
            assert locked.wait(10)
            try:
                services.generate_images(job, Lease(job))()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(somebody), pool.submit(worker)]:
                future.result()
        job.refresh_from_db()
        assert (job.status, rendered.is_set(), Image.objects.count()) == (JobStatus.COMPLETED, True, 1)
        return job

    return meanwhile


def test_a_picture_outlives_its_album(album, work):
    assert work(lambda: delete_album(album)).album is None


def test_a_picture_follows_its_album_into_another(album, work):
    other = AlbumFactory()

    assert work(lambda: merge_albums(other, [album])).album == other

    other.refresh_from_db()
    assert (other.images.count(), other.total_images) == (1, 1)


def test_jobs_that_wait_follow_their_album_into_another(album):
    other, bystander = AlbumFactory(), GenerationJobFactory(album=AlbumFactory())
    waiting = GenerationJobFactory(album=album)

    merge_albums(other, [album])

    waiting.refresh_from_db()
    assert waiting.album == other
    before = bystander.album
    bystander.refresh_from_db()
    assert bystander.album == before
