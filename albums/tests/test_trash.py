import uuid
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import PIL.Image
import pytest
from django.db import connections
from rest_framework.test import APIClient

from albums import consistency, services
from albums.models import Album, Image, ImageText
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from albums.thumbnails import thumbnail_of
from imagehub import storage
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.in_use import InUse, register, unregister

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff():
    client = APIClient()
    client.force_login(UserFactory(staff=True))
    return client


def path(image, end=""):
    return f"/api/images/{image.pk}{end}"


def files():
    return [file.name for area in ("images", "thumbnails") for file in storage.walk(area)]


class TestDelete:
    def test_puts_an_image_into_the_trash(self, staff, visitor):
        image = ImageFactory(public=True)

        assert staff.delete(path(image)).status_code == 204

        for end in ("", "/file", "/thumbnail"):
            assert visitor.get(path(image, end)).status_code == 404
            assert staff.get(path(image, end)).status_code == 200
        assert staff.get(path(image)).json()["deleted_at"]
        assert Image.objects.visible_to(UserFactory(staff=True)).count() == 0

    def test_may_be_asked_for_twice(self, staff):
        image = ImageFactory()
        staff.delete(path(image))
        before = Image.objects.get().deleted_at

        assert staff.delete(path(image)).status_code == 204
        assert Image.objects.get().deleted_at == before

    def test_counts_albums_again(self, staff):
        first, second = ImageFactory.create_batch(2, public=True)
        album = AlbumFactory(public=True, images=[first, second])

        staff.delete(path(first))
        album.refresh_from_db()
        assert (album.total_images, album.public_preview_ids) == (1, [str(second.pk)])
        staff.post(path(first, "/restore"))
        album.refresh_from_db()
        assert (album.total_images, album.public_preview_ids) == (2, [str(first.pk), str(second.pk)])

    def test_is_recorded(self, staff):
        image = ImageFactory()
        staff.delete(path(image))
        staff.post(path(image, "/restore"))

        entries = AuditEntry.objects.filter(target_id=str(image.pk)).order_by("pk")
        assert [entry.action for entry in entries] == ["image.trash", "image.restore"]

    def test_is_recorded_as_what_was_done(self):
        first, second, trashed = ImageFactory.create_batch(3)
        services.trash_images([trashed.pk])
        services.trash_images([trashed.pk])
        services.trash_images([first.pk, second.pk, trashed.pk])
        services.restore_images([first.pk, *[trashed.pk] * 2, uuid.uuid4()])

        entries = AuditEntry.objects.filter(action__in=["image.trash", "image.restore"]).order_by("pk")
        once, again, some, back = (entry.after for entry in entries)
        assert (once.keys(), again) == ({"deleted_at"}, {})
        assert (some["count"], some["images"]) == (2, sorted([str(first.pk), str(second.pk)]))
        assert (back["count"], back["images"]) == (2, sorted([str(first.pk), str(trashed.pk)]))

    @pytest.mark.parametrize("end", ["", "/restore", "/purge"])
    def test_is_for_staff(self, visitor, end):
        image = ImageFactory(public=True)
        call = visitor.post if end else visitor.delete

        assert call(path(image, end)).status_code == 401
        visitor.force_login(UserFactory())
        assert call(path(image, end)).status_code == 403

    @pytest.mark.parametrize("end", ["", "/restore", "/purge"])
    def test_of_what_is_not_there_is_not_found(self, staff, end):
        call = staff.post if end else staff.delete

        assert call(f"/api/images/{uuid.uuid4()}{end}").status_code == 404


class TestRestore:
    def test_brings_an_image_back(self, staff, visitor):
        image = ImageFactory(public=True)
        staff.delete(path(image))

        response = staff.post(path(image, "/restore"))

        assert (response.status_code, response.json()["deleted_at"]) == (200, None)
        assert visitor.get(path(image)).status_code == 200

    def test_of_what_is_not_in_the_trash_is_a_conflict(self, staff):
        response = staff.post(path(ImageFactory(), "/restore"))

        assert (response.status_code, response.json()["code"]) == (409, "not_in_trash")
        assert not AuditEntry.objects.filter(action="image.restore").exists()


@pytest.mark.django_db(transaction=True)
class TestPurge:
    def test_deletes_row_file_and_thumbnails(self, staff):
        image = ImageFactory()
        AlbumFactory(images=[image], cover=image)
        services.index_words([image.pk])
        thumbnail_of(image, 150)
        staff.delete(path(image))

        assert staff.post(path(image, "/purge")).status_code == 204

        assert Image.objects.count() == ImageText.objects.count() == 0
        assert Album.objects.get().cover is None
        assert files() == []
        assert staff.get(path(image)).status_code == 404
        assert AuditEntry.objects.filter(action="image.delete", target_id=str(image.pk)).exists()

    def test_deletes_the_thumbnails_of_a_file_that_is_missing(self, staff):
        image = ImageFactory()
        thumbnail_of(image, 150)
        storage.delete(image.storage_name)
        staff.delete(path(image))

        assert staff.post(path(image, "/purge")).status_code == 204

        assert files() == []

    def test_of_what_is_not_in_the_trash_is_a_conflict(self, staff):
        image = ImageFactory()

        response = staff.post(path(image, "/purge"))

        assert (response.status_code, response.json()["code"]) == (409, "not_in_trash")
        assert Image.objects.count() == 1

    def test_leaves_the_file_to_whoever_else_has_it(self, staff):
        first, second, third = ImageFactory.create_batch(3)
        services.trash_images([first.pk, second.pk, third.pk])

        services.purge_images([first.pk, second.pk])
        assert storage.exists(third.storage_name)  # also for one that lies in the trash itself

        services.purge_images([third.pk])
        assert files() == []

    def test_does_all_or_nothing(self):
        deleted, kept = ImageFactory(), ImageFactory()
        services.trash_images([deleted.pk])

        with pytest.raises(services.NotInTrash):
            services.purge_images([deleted.pk, kept.pk])

        assert Image.objects.count() == 2

    def test_leaves_what_is_in_use(self, staff):
        used, free = ImageFactory(), ImageFactory(content=picture(color="blue"))
        services.trash_images([used.pk, free.pk])

        def check(keys):
            return {pk: "A training run needs it." for pk in keys if pk == used.pk}

        register(Image, check)
        try:
            response = staff.post(path(used, "/purge"))
            assert (response.status_code, response.json()["code"]) == (409, "in_use")
            assert response.json()["detail"] == "A training run needs it."
            with pytest.raises(InUse):
                services.purge_images([used.pk, free.pk])
            assert staff.post(path(free, "/purge")).status_code == 204
        finally:
            unregister(Image, check)
        assert list(Image.objects.all()) == [used]

    def test_that_dies_before_the_file_leaves_a_file_and_no_row(self, monkeypatch):
        image = ImageFactory()
        services.trash_images([image.pk])

        def die(*_, **__):
            raise OSError("the disk has gone")

        monkeypatch.setattr(storage, "delete_all", die)
        services.purge_images([image.pk])

        assert Image.objects.count() == 0
        assert [file.name for file in consistency.check().files_without_rows] == [image.storage_name]


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    """Equal bytes come in while others of them are purged: no row is ever without its file."""

    def in_threads(self, *actions):
        def run(action):
            try:
                return action()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(len(actions)) as pool:
            return [future.result() for future in [pool.submit(run, action) for action in actions]]

    def upload(self, data):
        """Take bytes in as an upload does; again, if they were purged between the file and the row."""
        stored = storage.store_bytes(data, suffix="png")
        image = Image(
            name="picture", source_kind="upload", storage_name=stored.name, sha256=stored.sha256,
            size_bytes=stored.size_bytes, width=8, height=8, format="png",
        )  # fmt: skip
        try:
            return services.save_image(image)
        except services.ImageFileMissing:
            return self.upload(data)

    def test_no_row_loses_its_file(self):
        for number in range(8):
            data = picture(color=(number, 0, 0))
            old = [self.upload(data) for _ in range(2)]
            services.trash_images([image.pk for image in old])

            self.in_threads(
                lambda data=data: self.upload(data),
                lambda old=old: services.purge_images([old[0].pk]),
                lambda data=data: self.upload(data),
                lambda old=old: services.purge_images([old[1].pk]),
            )

            assert Image.objects.filter(sha256=old[0].sha256).count() == 2
            for image in Image.objects.filter(sha256=old[0].sha256):
                assert storage.open_file(image.storage_name).read() == data

    def test_a_row_is_not_written_when_its_file_was_purged_in_between(self):
        data = picture(color="green")
        old = self.upload(data)
        services.trash_images([old.pk])
        stored = storage.store_bytes(data, suffix="png")  # the upload has its file…
        services.purge_images([old.pk])

        late = Image(
            name="picture", source_kind="upload", storage_name=stored.name, sha256=stored.sha256,
            size_bytes=stored.size_bytes, width=8, height=8, format="png",
        )  # fmt: skip
        with pytest.raises(services.ImageFileMissing):  # …and is told when it comes with its row
            services.save_image(late)
        assert Image.objects.count() == 0

    def test_purged_and_restored_it_is_one_or_the_other(self):
        for number in range(4):
            image = self.upload(picture(color=(0, number, 0)))
            services.trash_images([image.pk])

            def purge(image=image):
                try:
                    return services.purge_images([image.pk])
                except services.NotInTrash:
                    return 0

            purged, restored = self.in_threads(purge, lambda image=image: services.restore_images([image.pk]))

            assert purged + restored == 1
            assert storage.path_of(image.storage_name).is_file() == bool(restored)
            if restored:
                with PIL.Image.open(BytesIO(storage.open_file(image.storage_name).read())) as opened:
                    opened.load()
