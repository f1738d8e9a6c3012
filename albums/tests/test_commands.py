import os
import time
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from albums import consistency
from albums.models import Album, Image
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from albums.thumbnails import thumbnail_of
from imagehub import storage

pytestmark = pytest.mark.django_db

HOUR = 3600


def check_storage(**options):
    """Run the command; return whether it found everything in order, and what it said."""
    output = StringIO()
    try:
        call_command("check_storage", stdout=output, **options)
    except CommandError:
        return False, output.getvalue()
    return True, output.getvalue()


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def image():
    image = ImageFactory()
    thumbnail_of(image, 150)
    return image


@pytest.fixture
def orphan(image):
    stored = storage.store_bytes(picture(color="blue"), suffix="png")
    return storage.path_of(stored.name)


class TestCheckStorage:
    def test_finds_nothing_in_an_empty_store(self):
        assert check_storage() == (True, "0 images, 0 files.\nClean.\n")

    def test_finds_nothing_where_rows_and_files_agree(self, image):
        assert check_storage() == (True, "1 images, 2 files.\nClean.\n")

    def test_finds_a_row_without_its_file(self, image):
        storage.delete(image.storage_name)

        clean, output = check_storage()

        assert not clean
        assert f"{image.pk}  {image.storage_name}" in output

    def test_finds_a_row_whose_file_is_outside(self, image, tmp_path):
        (tmp_path / "secret.png").write_bytes(picture())
        type(image).objects.update(storage_name="../secret.png")

        clean, output = check_storage(fix=True)

        assert not clean
        assert "Images without a file: 1" in output
        assert (tmp_path / "secret.png").exists()

    def test_finds_a_file_without_a_row(self, orphan):
        clean, output = check_storage()

        assert not clean
        assert orphan.name in output
        assert orphan.exists()

    @pytest.mark.parametrize(
        "name", ["images/stray.png", "images/ab/.1234.part", "thumbnails/150/stray.webp"]
    )
    def test_finds_files_of_other_names(self, image, name):
        storage.write_file(name, b"stray")

        clean, output = check_storage()

        assert not clean
        assert name in output

    def test_finds_thumbnails_of_a_size_given_up(self, image, set_config):
        set_config("storage: {minimum_free_bytes: 0, thumbnail_sizes: [300]}")

        clean, output = check_storage()

        assert not clean
        assert "thumbnails/150/" in output

    def test_finds_an_abandoned_staging_folder(self, image):
        age(storage.staging_dir("dead-job"), 49 * HOUR)
        storage.staging_dir("live-job")

        clean, output = check_storage()

        assert not clean
        assert "dead-job" in output
        assert "live-job" not in output

    def test_finds_an_album_that_counts_its_images_wrong(self, image):
        AlbumFactory(name="right", images=[image])
        wrong = [AlbumFactory(images=[image]) for _ in range(2)]
        Album.objects.filter(pk=wrong[0].pk).update(public_images=7)
        Album.objects.filter(pk=wrong[1].pk).update(preview_ids=[])

        clean, output = check_storage()

        assert not clean
        assert "Albums that count their images wrong: 2" in output
        assert all(str(album.pk) in output for album in wrong)


class TestFix:
    def test_deletes_old_files_without_a_row(self, orphan, image):
        age(orphan, 2 * HOUR)
        age(storage.path_of(image.storage_name), 2 * HOUR)

        clean, output = check_storage(fix=True)

        assert clean
        assert "Deleted 1 leftovers." in output
        assert not orphan.exists()
        assert storage.path_of(image.storage_name).exists()

    def test_spares_a_file_whose_row_may_be_about_to_come(self, orphan):
        clean, _ = check_storage(fix=True)

        assert not clean
        assert orphan.exists()

    def test_spares_a_file_that_got_a_row_after_it_was_found(self, image):
        path = storage.path_of(image.storage_name)
        thumbnail = storage.path_of(thumbnail_of(image, 150))
        row = Image.objects.get()
        image.delete()
        found = list(consistency.files_without_rows())
        row.save(force_insert=True)
        age(path, 2 * HOUR)
        age(thumbnail, 2 * HOUR)

        assert len(found) == 2
        assert consistency.remove_leftovers(found) == 0
        assert path.exists()
        assert thumbnail.exists()

    def test_spares_a_row_without_its_file(self, image):
        storage.delete(image.storage_name)

        clean, _ = check_storage(fix=True)

        assert not clean
        image.refresh_from_db()

    def test_deletes_the_thumbnails_of_images_that_are_gone(self, image):
        path = storage.path_of(thumbnail_of(image, 150))
        age(path, 2 * HOUR)
        age(storage.path_of(image.storage_name), 2 * HOUR)
        image.delete()

        clean, _ = check_storage(fix=True)

        assert clean
        assert not path.exists()

    def test_counts_the_images_of_albums_again(self, image):
        album = AlbumFactory(images=[image])
        Album.objects.update(total_images=7)

        clean, output = check_storage(fix=True)

        assert clean
        assert "Counted the images of 1 albums again." in output
        album.refresh_from_db()
        assert album.total_images == 1

    def test_deletes_abandoned_staging(self, image):
        folder = storage.staging_dir("dead-job")
        age(folder, 49 * HOUR)

        clean, _ = check_storage(fix=True)

        assert clean
        assert not folder.exists()
