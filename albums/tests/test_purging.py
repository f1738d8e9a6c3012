"""Purges of the trash: real rows and files, on a disk and in a bucket."""

import os
from datetime import timedelta

import pytest
from django.utils import timezone

from albums import consistency, services
from albums.models import Album, Image, ImageText
from albums.services import purging, trash
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from albums.thumbnails import thumbnail_of
from imagehub import storage
from imagehub.in_use import register, unregister
from imagehub.operations import purges
from imagehub.operations.tests.killing import killed_at
from imagehub.storage import bucket as buckets
from imagehub.tests.together import at_once

pytestmark = pytest.mark.django_db


def trashed(days=40, **fields):
    return ImageFactory(deleted_at=timezone.now() - timedelta(days=days), **fields)


def colored(number):
    return picture(color=(number, 0, 0))


def purge(days=30, **options):
    return purging.purge_trash(cutoff=timezone.now() - timedelta(days=days), **options)


def files():
    return [file.name for area in ("images", "thumbnails") for file in storage.walk(area)]


@pytest.fixture(params=["disk", "bucket"])
def anywhere(request):
    if request.param == "bucket":
        request.getfixturevalue("bucket")
        # Its clock counts whole seconds, and the files of a test are younger.
        request.getfixturevalue("monkeypatch").setattr(buckets, "_age", lambda _: timedelta(minutes=1))


@pytest.mark.usefixtures("anywhere")
def test_deletes_what_has_been_there_for_so_long_with_its_files():
    old = trashed(content=colored(1))
    AlbumFactory(images=[old], cover=old)
    services.index_words([old.pk])
    thumbnail_of(old, 150)
    live, recent = ImageFactory(content=colored(2)), trashed(days=20, content=colored(3))

    assert purge(is_dry_run=True).bytes == old.size_bytes
    assert Image.objects.count() == 3
    freed = purge()

    assert vars(freed) == {"images": 1, "kept": 0, "bytes": old.size_bytes, "failed": 0, "errors": []}
    assert set(Image.objects.all()) == {live, recent}
    assert ImageText.objects.filter(image=old.pk).count() == 0
    assert Album.objects.get().cover is None
    assert sorted(files()) == sorted([live.storage_name, recent.storage_name])


def test_leaves_a_file_to_whoever_else_has_it():
    first, second = trashed(), trashed(days=10)
    assert purge(is_dry_run=True).bytes == 0
    freed = purge()
    assert (freed.images, freed.bytes) == (1, 0)
    assert storage.exists(second.storage_name)
    assert purge(days=5).bytes == first.size_bytes
    assert files() == []


@pytest.mark.parametrize("is_dry_run", [True, False])
def test_what_is_in_use_stays_and_keeps_no_other(is_dry_run):
    used, *free = [trashed(content=colored(number)) for number in range(3)]

    def check(keys):
        return {pk: "A training run needs it." for pk in keys if pk == used.pk}

    register(Image, check)
    try:
        freed = purge(is_dry_run=is_dry_run)
    finally:
        unregister(Image, check)

    assert (freed.images, freed.kept) == (2, 1)
    assert set(Image.objects.all()) == ({used, *free} if is_dry_run else {used})


def test_goes_in_batches_and_the_oldest_first_where_there_is_a_limit(monkeypatch):
    monkeypatch.setattr(purging, "BATCH", 2)
    rows = [trashed(days=days, content=colored(days)) for days in (40, 80, 60, 50, 70)]
    beats = []

    assert purge(limit=3, on_progress=lambda: beats.append(1)).images == 3
    assert set(Image.objects.all()) == {rows[0], rows[3]}
    assert len(beats) == 2


def test_what_somebody_restores_meanwhile_stays(monkeypatch):
    image = trashed()
    keys = purging.older_than

    def restored(*args, **options):
        for found in keys(*args, **options):
            services.restore_images(found)
            yield found

    monkeypatch.setattr(purging, "older_than", restored)
    assert purge().images == 0
    assert Image.objects.live().get() == image
    assert storage.exists(image.storage_name)


def test_says_of_files_that_cannot_be_deleted_why_and_the_sweep_finds_them(monkeypatch):
    image = trashed()

    def fails(names, **_):
        raise OSError(5, "Input/output error", f"/secret/{names}")

    with monkeypatch.context() as context:
        context.setattr(storage, "delete_all", fails)
        done = purges.purge_now("trash", older_than_days=30)

    assert (done.state, done.result["images"], done.result["failed"]) == ("failed", 1, 1)
    assert done.result["errors"] == [f"the files of image {image.pk}: Input/output error"]
    assert [file.name for file in consistency.check().files_without_rows] == [image.storage_name]


class TestWhatLiesElsewhere:
    @pytest.fixture
    def precious(self, tmp_path):
        outside = tmp_path / "elsewhere"
        outside.mkdir()
        (outside / "precious.png").write_text("x")
        return outside / "precious.png"

    @pytest.mark.parametrize(
        "name", ["../elsewhere/precious.png", "/etc/hostname", "images/../../elsewhere/precious.png"]
    )
    def test_is_not_reached_by_a_name_that_leads_out(self, precious, name):
        image = trashed()
        Image.objects.update(storage_name=name)

        done = purges.purge_now("trash", older_than_days=30)

        assert precious.exists()
        assert done.state == "failed"
        assert str(precious.parent) not in str(done.result)
        assert storage.exists(image.storage_name)

    def test_nor_by_a_link_in_place_of_a_folder(self, precious):
        image = trashed()
        path = storage.path_of(image.storage_name)
        elsewhere = precious.parent / path.name
        path.rename(elsewhere)
        path.parent.rmdir()
        path.parent.symlink_to(elsewhere.parent)

        done = purges.purge_now("trash", older_than_days=30)

        assert elsewhere.exists()
        assert done.state == "failed"

    def test_nor_by_one_in_place_of_a_file(self, precious):
        image = trashed()
        path = storage.path_of(image.storage_name)
        path.unlink()
        path.symlink_to(precious)

        done = purges.purge_now("trash", older_than_days=30)

        assert precious.exists()
        assert done.result["errors"] == [f"the files of image {image.pk}: unsafe_path"]


class TestAPurgeThatIsKilled:
    pytestmark = pytest.mark.django_db(transaction=True)

    @pytest.mark.parametrize(
        ("owner", "name", "call"),
        [
            (purging, "in_use", 2),
            (purging, "delete_unused_files", 1),
            (trash, "try_to_hold_contents_alone", 1),
            (storage, "delete_all", 2),
            (os, "unlink", 2),
        ],
    )
    def test_leaves_no_row_without_a_file_and_the_sweep_finds_files_without_rows(
        self, owner, name, call, monkeypatch, settings
    ):
        monkeypatch.setattr(purging, "BATCH", 2)
        for number in range(4):
            trashed(content=colored(number))

        killed_at(owner, name, purge, call=call)

        report = consistency.check()
        assert not report.rows_without_files
        assert purge().images == report.images
        for area in ("images", "thumbnails"):
            for file in storage.walk(area):
                os.utime(storage.path_of(file.name), (0, 0))
        consistency.remove_leftovers(consistency.files_without_rows())
        assert files() == []


class TestTwoAtOnce:
    pytestmark = pytest.mark.django_db(transaction=True)

    def test_delete_each_image_once(self, monkeypatch):
        monkeypatch.setattr(purging, "BATCH", 3)
        images = [trashed(content=colored(number)) for number in range(30)]

        freed = at_once(lambda days: purge(days=days), [30, 20, 10])

        assert sum(part.images for part in freed) == len(images)
        assert sum(part.bytes for part in freed) == sum(image.size_bytes for image in images)
        assert [part.errors for part in freed] == [[], [], []]
        assert not Image.objects.exists()
        assert files() == []
