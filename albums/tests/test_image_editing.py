from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.exceptions import ValidationError
from django.db import connections
from rest_framework.test import APIClient

from albums.models import Image
from albums.services import ImageInTrash, trash_images, update_image, update_images
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff():
    client = APIClient()
    client.force_login(UserFactory(staff=True))
    return client


def change(client, image, **body):
    return client.patch(f"/api/images/{image.pk}", body, format="json")


class TestPatch:
    def test_changes_what_is_named_and_nothing_else(self, staff):
        image = ImageFactory(name="before", prompt="a red heart")

        response = change(staff, image, rating=4, starred=True)

        assert response.status_code == 200
        body = response.json()
        assert (body["rating"], body["starred"], body["name"], body["prompt"]) == (
            4, True, "before", "a red heart",
        )  # fmt: skip
        image.refresh_from_db()
        assert (image.rating, image.starred, image.name) == (4, True, "before")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("visibility", "public"),
            ("nsfw", "flagged"),
            ("starred", True),
            ("rating", 5),
            ("rating", 0),
            ("name", "Queen"),
            ("prompt", ""),
            ("prompt", "x" * 20_000),
            ("negative_prompt", "blur"),
        ],
    )
    def test_takes(self, staff, field, value):
        assert change(staff, ImageFactory(), **{field: value}).json()[field] == value

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("visibility", "secret"),
            ("nsfw", None),
            ("starred", "true"),
            ("starred", None),
            ("rating", 6),
            ("rating", -1),
            ("rating", "5"),
            ("rating", None),
            ("name", ""),
            ("name", "x" * 201),
            ("prompt", "x" * 20_001),
            ("prompt", None),
            ("prompt", "a\0b"),
            ("seed", 7),
            ("storage_name", "images/other.png"),
            ("owner", None),
            ("colour", "red"),
        ],
    )
    def test_refuses(self, staff, field, value):
        image = ImageFactory()

        response = change(
            staff, image, **{field: value, "starred": True} if field != "starred" else {field: value}
        )

        assert response.status_code == 400
        assert response.json()["errors"][0]["pointer"] == f"/{field}"
        image.refresh_from_db()
        assert not image.starred

    def test_lets_a_changed_prompt_be_found(self, staff):
        image = ImageFactory(public=True, prompt="a red heart")
        change(staff, image, prompt="a black spade")

        assert Image.objects.search("spade").get() == image
        assert not Image.objects.search("heart").exists()

    @pytest.mark.parametrize("body", [{"visibility": "private"}, {"nsfw": "flagged"}])
    def test_counts_albums_again_when_somebody_else_sees_it(self, staff, body):
        image, other = ImageFactory.create_batch(2, public=True)
        album = AlbumFactory(public=True, images=[image, other])

        change(staff, image, **body)

        album.refresh_from_db()
        assert (album.total_images, album.public_images) == (2, 1)
        assert album.public_preview_ids == [str(other.pk)]

    def test_is_recorded_with_what_was_there_before(self, staff):
        change(staff, ImageFactory(rating=2), rating=4)

        entry = AuditEntry.objects.get(action="image.change")
        assert (entry.before, entry.after) == ({"rating": 2}, {"rating": 4})

    def test_of_nothing_is_recorded_too(self, staff):
        assert change(staff, ImageFactory()).status_code == 200
        assert AuditEntry.objects.filter(action="image.change").count() == 1

    def test_does_not_reach_into_the_trash(self, staff):
        image = ImageFactory()
        trash_images([image.pk])

        response = change(staff, image, rating=3)

        assert (response.status_code, response.json()["code"]) == (409, "image_in_trash")

    def test_of_what_is_purged_in_the_meantime_is_a_conflict(self, staff, monkeypatch):
        image = ImageFactory()

        def purge_first(image, **changes):
            Image.objects.all().delete()
            return update_image(image, **changes)

        monkeypatch.setattr("albums.api.image_views.update_image", purge_first)

        response = change(staff, image, rating=3)

        assert (response.status_code, response.json()["code"]) == (409, "image_gone")

    def test_is_for_staff(self):
        image = ImageFactory(public=True)
        client = APIClient()

        assert change(client, image, rating=3).status_code == 401
        client.force_login(UserFactory())
        assert change(client, image, rating=3).status_code == 403


class TestUpdateImage:
    def test_refuses_what_is_not_for_people_to_change(self):
        with pytest.raises(TypeError, match="seed"):
            update_image(ImageFactory(), seed=7)

    def test_refuses_what_is_out_of_range(self):
        with pytest.raises(ValidationError):
            update_image(ImageFactory(), rating=9)

    def test_does_not_believe_the_row_that_it_is_given(self):
        image = ImageFactory(name="old")
        Image.objects.filter(pk=image.pk).update(name="new")

        assert update_image(image, rating=1).name == "new"

    @pytest.mark.django_db(transaction=True)
    def test_loses_nothing_when_many_change_at_once(self):
        image = ImageFactory()
        changes = [
            {"rating": 3}, {"starred": True}, {"name": "Queen"}, {"prompt": "a spade"}, {"negative_prompt": "blur"},
            {"nsfw": "safe"}, {"visibility": "public"},
        ]  # fmt: skip

        def run(values):
            try:
                update_image(image, **values)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(len(changes)) as pool:
            list(pool.map(run, changes))

        image.refresh_from_db()
        for values in changes:
            for name, value in values.items():
                assert getattr(image, name) == value


class TestUpdateImages:
    def test_gives_many_the_same_values(self):
        images = ImageFactory.create_batch(3)
        album = AlbumFactory(images=images)
        trash_images([images[0].pk])

        assert update_images([image.pk for image in images], visibility="public", rating=2) == 2

        assert set(Image.objects.live().values_list("visibility", "rating")) == {("public", 2)}
        assert Image.objects.in_trash().get().visibility == "private"
        album.refresh_from_db()
        assert album.public_images == 2

    def test_takes_ids(self):
        images = ImageFactory.create_batch(2)

        assert update_images([images[0].pk], starred=True) == 1
        assert list(Image.objects.filter(starred=True)) == [images[0]]

    def test_changes_nothing_unless_told_what(self):
        assert update_images([ImageFactory().pk]) == 0

    @pytest.mark.parametrize("values", [{"rating": 6}, {"visibility": "secret"}, {"nsfw": "maybe"}])
    def test_refuses_what_is_out_of_range(self, values):
        with pytest.raises(ValidationError):
            update_images([ImageFactory().pk], **values)

    def test_writes_one_entry_that_says_how_many(self):
        *images, trashed = ImageFactory.create_batch(4)
        trash_images([trashed.pk])

        update_images([image.pk for image in [*images, trashed, *images]], starred=False)

        entry = AuditEntry.objects.get(action="image.change")
        assert (entry.after["count"], entry.after["starred"]) == (3, False)
        assert entry.after["images"] == sorted(str(image.pk) for image in images)

    def test_refuses_what_is_in_the_trash_alone(self):
        image = ImageFactory()
        trash_images([image.pk])

        with pytest.raises(ImageInTrash):
            update_image(image, rating=1)
