import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, transaction

from albums import services
from albums.models import Album, Image
from albums.tests.factories import AlbumFactory, ImageFactory, picture, staged, stored_files
from imagehub import storage

pytestmark = pytest.mark.django_db


def store_image(image, path, *, album=None):
    return services.save_image(services.adopt_image_file(image, path), album=album)


def unsaved_image(**fields):
    return Image(name="a red heart", source_kind=Image.SourceKind.GENERATION, **fields)


class TestStoreImage:
    def test_takes_the_file_and_saves_the_row(self, tmp_path):
        file = staged(tmp_path, size=(12, 7))

        image = store_image(unsaved_image(prompt="a red heart", seed=42), file)

        image.refresh_from_db()
        assert (image.width, image.height, image.format) == (12, 7, "png")
        assert image.storage_name == f"images/{image.sha256[:2]}/{image.sha256}.png"
        assert storage.size(image.storage_name) == image.size_bytes
        assert not file.exists()

    @pytest.mark.parametrize(
        ("file_format", "stored_format", "suffix"),
        [("PNG", "png", ".png"), ("JPEG", "jpeg", ".jpg"), ("WEBP", "webp", ".webp")],
    )
    def test_believes_the_content_and_not_the_name(self, tmp_path, file_format, stored_format, suffix):
        file = staged(tmp_path, "picture.exe", file_format=file_format)

        image = store_image(unsaved_image(), file)

        assert image.format == stored_format
        assert image.storage_name.endswith(suffix)

    @pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF"])
    def test_refuses_other_formats(self, tmp_path, file_format):
        file = staged(tmp_path, file_format=file_format)

        with pytest.raises(services.UnreadablePicture):
            store_image(unsaved_image(), file)

        assert stored_files() == []

    def test_refuses_what_is_no_picture(self, tmp_path):
        (tmp_path / "picture.png").write_bytes(b"not a picture")

        with pytest.raises(services.UnreadablePicture):
            store_image(unsaved_image(), tmp_path / "picture.png")

    def test_refuses_a_bomb_by_its_header(self, tmp_path):
        file = staged(tmp_path)
        data = bytearray(file.read_bytes())
        data[16:24] = (20_000).to_bytes(4, "big") * 2
        data[29:33] = _checksum(data[12:29])
        file.write_bytes(data)

        with pytest.raises(services.UnreadablePicture, match="pixels"):
            store_image(unsaved_image(), file)

    def test_saves_one_row_when_a_job_delivers_twice(self, tmp_path):
        source_id = uuid.uuid4()
        store_image(unsaved_image(source_id=source_id, source_index=3), staged(tmp_path))

        with pytest.raises(IntegrityError):
            store_image(unsaved_image(source_id=source_id, source_index=3), staged(tmp_path))

        assert Image.objects.count() == 1
        assert len(stored_files()) == 1

    def test_stores_the_file_before_the_row(self, tmp_path):
        with pytest.raises(ValidationError):
            store_image(unsaved_image(seed=-1), staged(tmp_path))

        assert Image.objects.count() == 0
        assert len(stored_files()) == 1

    def test_saves_nothing_when_the_disk_is_full(self, tmp_path, set_config):
        set_config("storage: {minimum_free_bytes: 1000000000000000}")

        with pytest.raises(storage.StorageFull):
            store_image(unsaved_image(), staged(tmp_path))

        assert Image.objects.count() == 0

    def test_puts_the_image_into_an_album(self, tmp_path):
        album = AlbumFactory()

        image = store_image(unsaved_image(), staged(tmp_path), album=album)

        assert list(album.images.all()) == [image]

    def test_lets_equal_pictures_share_a_file(self, tmp_path):
        images = [store_image(unsaved_image(), staged(tmp_path)) for _ in range(2)]

        assert images[0].storage_name == images[1].storage_name
        assert Image.objects.count() == 2


class TestSaveImage:
    def test_joins_the_transaction_of_the_caller(self, tmp_path):
        image = services.adopt_image_file(unsaved_image(), staged(tmp_path))

        with transaction.atomic():
            services.save_image(image)
            transaction.set_rollback(True)

        assert Image.objects.count() == 0

    def test_saves_the_row_only_together_with_its_place(self, tmp_path):
        deleted = AlbumFactory()
        Album.objects.all().delete()
        image = services.adopt_image_file(unsaved_image(), staged(tmp_path))

        with pytest.raises(services.AlbumGone):
            services.save_image(image, album=deleted)

        assert Image.objects.count() == 0


class TestCreateAlbum:
    def test_saves_a_private_album_unless_told_otherwise(self):
        album = services.create_album(Album(name="Cards"))

        album.refresh_from_db()
        assert (album.kind, album.visibility) == ("manual", "private")

    @pytest.mark.parametrize("fields", [{"name": ""}, {"name": "x" * 201}, {"name": "a", "kind": "magic"}])
    def test_refuses_fields_out_of_range(self, fields):
        with pytest.raises(ValidationError):
            services.create_album(Album(**fields))


class TestAddImagesToAlbum:
    def order(self, album):
        return list(album.memberships.in_order().values_list("image_id", "position"))

    def test_appends_in_the_order_given(self):
        first, second, third = ImageFactory.create_batch(3)
        album = AlbumFactory(images=[second])

        assert services.add_images_to_album(album, [third, first]) == 2

        assert self.order(album) == [(second.pk, 0), (third.pk, 1), (first.pk, 2)]

    def test_skips_what_is_there_and_what_comes_twice(self):
        first, second = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[first])

        assert services.add_images_to_album(album, [second, first, second]) == 1

        assert self.order(album) == [(first.pk, 0), (second.pk, 1)]

    def test_takes_nothing(self):
        assert services.add_images_to_album(AlbumFactory(), []) == 0

    def test_leaves_out_what_was_put_into_the_trash_in_the_meantime(self):
        image, trashed = ImageFactory.create_batch(2)
        album = AlbumFactory()
        services.trash_images([trashed.pk])

        assert services.add_images_to_album(album, [trashed, image]) == 1
        assert album.memberships.get().image == image

    def test_notes_the_change_on_the_album(self):
        album = AlbumFactory()
        before = album.updated_at

        services.add_images_to_album(album, [ImageFactory()])

        album.refresh_from_db()
        assert album.updated_at > before


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    def in_threads(self, action, subjects):
        def run(subject):
            try:
                return action(subject)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(len(subjects)) as pool:
            return list(pool.map(run, subjects))

    def test_images_added_by_many_get_places_of_their_own(self):
        album = AlbumFactory()
        images = ImageFactory.create_batch(8)

        self.in_threads(lambda image: services.add_images_to_album(album, [image]), images)

        places = album.memberships.in_order().values_list("position", flat=True)
        assert list(places) == list(range(8))

    def test_one_image_added_by_many_is_there_once(self):
        album, image = AlbumFactory(), ImageFactory()

        added = self.in_threads(lambda _: services.add_images_to_album(album, [image]), range(8))

        assert sorted(added) == [0] * 7 + [1]

    def test_one_picture_of_a_job_delivered_by_many_is_one_row(self, tmp_path):
        source_id = uuid.uuid4()
        files = [staged(tmp_path, f"{number}.png") for number in range(8)]

        def deliver(file):
            try:
                store_image(unsaved_image(source_id=source_id), file)
            except IntegrityError:
                return False
            return True

        assert sum(self.in_threads(deliver, files)) == 1
        assert Image.objects.count() == 1
        assert len(stored_files()) == 1


class TestLocalImage:
    def test_says_so_when_the_file_is_gone(self, anywhere):
        image = ImageFactory(name="a red heart")
        storage.delete(image.storage_name)

        with pytest.raises(services.ImageFileMissing, match="a red heart"), services.local_image(image):
            pass

    def test_lends_the_file(self, anywhere):
        with services.local_image(ImageFactory()) as path:
            assert path.read_bytes() == picture()

    def test_says_nothing_of_its_own_about_what_the_borrower_misses(self):
        with pytest.raises(FileNotFoundError), services.local_image(ImageFactory()):
            raise FileNotFoundError


def _checksum(chunk):
    return zlib.crc32(chunk).to_bytes(4, "big")
