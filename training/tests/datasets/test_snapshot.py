import pytest
from django.contrib.auth.models import AnonymousUser

from albums.models import AlbumImage, Image, LabelOrigin
from albums.services import put_label, trash_images
from albums.tests.factories import AlbumFactory, many_images
from imagehub.accounts.tests.factories import UserFactory
from imagehub.errors import InvalidFields
from training.datasets.splits import split
from training.models import Dataset
from training.services.datasets import (
    NotEnoughImages,
    TooManyImages,
    albums_named,
    manifest_of,
    readiness_of,
    snapshot,
    snapshot_again,
)
from training.tests.datasets.albums import FEW, RECIPE, caption, captioned_album, image

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _few_are_enough(set_config):
    set_config(FEW)


class TestSnapshot:
    def test_it_holds_each_captioned_picture_once_as_it_is_now(self):
        shared = captioned_album(4)
        other = AlbumFactory(images=[*shared.images.all()[:2], image(50)])
        owner = UserFactory(staff=True)

        dataset = snapshot([shared, other], RECIPE, owner)

        rows = list(dataset.images.order_by("position"))
        assert [row.position for row in rows] == [0, 1, 2, 3]
        assert {row.image_id for row in rows} == set(shared.images.values_list("pk", flat=True))
        assert {row.caption for row in rows} == {f"picture {number}" for number in range(4)}
        assert {(row.width, row.bucket_width) for row in rows} == {(64, 64)}
        assert dataset.owner == owner
        assert dataset.albums == [
            {"id": str(shared.pk), "name": shared.name},
            {"id": str(other.pk), "name": other.name},
        ]
        assert manifest_of(dataset).digest() == dataset.sha256

    def test_later_changes_do_not_reach_it(self):
        album = captioned_album(4)
        dataset = snapshot([album], RECIPE, UserFactory())
        before = dataset.sha256

        first = album.images.first()
        put_label(first, "caption", "something else", LabelOrigin.HUMAN)
        trash_images([first.pk])

        assert manifest_of(Dataset.objects.get()).digest() == before

    def test_the_same_pictures_give_the_same_manifest(self):
        album, owner = captioned_album(5), UserFactory()

        one, two = (snapshot([album], RECIPE, owner) for _ in range(2))

        assert one.pk != two.pk
        assert one.sha256 == two.sha256

    def test_people_are_believed_before_imports_models_and_pages(self):
        origins = [LabelOrigin.SCRAPE, LabelOrigin.MODEL, LabelOrigin.IMPORT, LabelOrigin.HUMAN]
        images = [image(number) for number in range(4)]
        for number, one in enumerate(images):
            for origin in origins[: number + 1]:
                caption(one, origin.value, origin, model="seer" if origin == LabelOrigin.MODEL else "")

        dataset = snapshot([AlbumFactory(images=images)], RECIPE, UserFactory())

        assert {row.image_id: row.caption for row in dataset.images.all()} == {
            one.pk: origin.value for one, origin in zip(images, origins, strict=True)
        }

    def test_what_is_trashed_without_caption_or_too_small_is_left_out(self):
        album = captioned_album(6)
        images = list(album.images.order_by("memberships__position"))
        trash_images([images[0].pk])
        images[1].labels.all().delete()
        Image.objects.filter(pk=images[2].pk).update(width=63)

        dataset = snapshot([album], RECIPE, UserFactory())

        assert {row.image_id for row in dataset.images.all()} == {one.pk for one in images[3:]}

    def test_an_album_says_how_often_its_pictures_are_shown_and_the_largest_number_counts(self):
        often = captioned_album(3)
        seldom = AlbumFactory(images=[*often.images.all()[:1], *captioned_album(1, first=9).images.all()])
        recipe = RECIPE.model_copy(update={"repeats": {str(often.pk): 3, str(seldom.pk): 2}})

        dataset = snapshot([seldom, often], recipe, UserFactory())

        assert sorted(dataset.images.values_list("repeats", flat=True)) == [2, 3, 3, 3]

    def test_roles_follow_from_the_pictures(self):
        album = captioned_album(30)

        dataset = snapshot([album], RECIPE, UserFactory())

        roles = dict(dataset.images.values_list("sha256", "role"))
        assert roles == split(list(roles), share=0.25)
        assert set(roles.values()) == {"train", "validation"}

    def test_images_are_counted_and_not_captions(self):
        images = [image(number) for number in range(2)]
        for one in images:
            caption(one)
            caption(one, "of a model", LabelOrigin.MODEL, model="seer")

        with pytest.raises(NotEnoughImages, match="2 images"):
            snapshot([AlbumFactory(images=images)], RECIPE, UserFactory())
        assert not Dataset.objects.exists()

    def test_more_than_a_data_set_may_have_are_refused(self, set_config):
        set_config(FEW.replace("minimum_images: 3", "minimum_images: 3, max_images: 4"))

        with pytest.raises(TooManyImages, match="5 images"):
            snapshot([captioned_album(5)], RECIPE, UserFactory())

    def test_it_takes_as_many_queries_for_many_pictures_as_for_few(self, django_assert_max_num_queries):
        images = many_images(400, width=64, height=64)
        album = AlbumFactory()
        AlbumImage.objects.bulk_create(
            AlbumImage(album=album, image=one, position=place) for place, one in enumerate(images)
        )
        for one in images[:3]:
            caption(one)

        with django_assert_max_num_queries(12):
            snapshot([album], RECIPE, UserFactory())


class TestSnapshotAgain:
    def test_the_same_recipe_needs_no_other(self):
        dataset = snapshot([captioned_album(4)], RECIPE, UserFactory())

        assert snapshot_again(dataset, RECIPE, UserFactory()) == dataset

    def test_another_resolution_gives_other_buckets_and_nothing_else(self):
        dataset = snapshot([captioned_album(4)], RECIPE, UserFactory())
        recipe = RECIPE.model_copy(update={"resolution": 32})

        again = snapshot_again(dataset, recipe, UserFactory())

        assert again != dataset
        assert again.albums == dataset.albums
        assert set(again.images.values_list("bucket_width", "bucket_height")) == {(32, 32)}
        for column in ("image_id", "caption", "sha256"):
            assert set(again.images.values_list(column)) == set(dataset.images.values_list(column))
        assert manifest_of(again).digest() == again.sha256


class TestReadiness:
    def test_images_with_a_caption_are_counted_once(self):
        ready, not_ready, empty = captioned_album(3), captioned_album(2, first=10), AlbumFactory()
        caption(ready.images.first(), "again", LabelOrigin.IMPORT)

        found = readiness_of([ready, not_ready, empty], UserFactory(staff=True))

        assert [found[album.pk].captioned_images for album in (ready, not_ready, empty)] == [3, 2, 0]
        assert [found[album.pk].is_ready for album in (ready, not_ready, empty)] == [True, False, False]
        assert found[ready.pk].total_images == 3

    def test_nobody_counts_what_he_does_not_see(self):
        album = captioned_album(4, public=True)
        Image.objects.filter(pk=album.images.first().pk).update(visibility="public")
        trash_images([album.images.last().pk])
        album.refresh_from_db()

        found = readiness_of([album], AnonymousUser())[album.pk]

        assert (found.total_images, found.captioned_images) == (1, 1)
        assert readiness_of([album], UserFactory(staff=True))[album.pk].captioned_images == 3

    def test_one_query_tells_of_all(self, django_assert_num_queries):
        albums = [captioned_album(2, first=10 * number) for number in range(3)]

        with django_assert_num_queries(1):
            readiness_of(albums, UserFactory.build(staff=True))


class TestAlbumsNamed:
    def test_albums_come_in_the_order_of_their_ids(self):
        albums = [AlbumFactory() for _ in range(3)]

        assert albums_named([album.pk for album in reversed(albums)]) == albums[::-1]

    def test_all_that_is_wrong_is_told_at_once(self):
        album, unknown = AlbumFactory(), AlbumFactory.build()

        with pytest.raises(InvalidFields) as caught:
            albums_named([album.pk, unknown.pk, album.pk])

        assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [
            ("/album_ids/1", "does_not_exist"),
            ("/album_ids/2", "duplicate"),
        ]
