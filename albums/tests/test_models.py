import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from albums.models import Album, AlbumImage, Image, Visibility
from albums.services.bulk import refresh_albums_of
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


def people():
    return AnonymousUser(), UserFactory(), UserFactory(staff=True)


class TestVisibleTo:
    @pytest.mark.parametrize("factory", [ImageFactory, AlbumFactory])
    def test_shows_private_rows_to_staff_only(self, factory):
        public, private = factory(public=True), factory()
        visitor, user, staff = people()

        rows = type(public).objects.all()

        assert set(rows.visible_to(visitor)) == {public}
        assert set(rows.visible_to(user)) == {public}
        assert set(rows.visible_to(staff)) == {public, private}

    def test_shows_nothing_private_to_staff_who_left(self):
        ImageFactory()

        assert not Image.objects.visible_to(UserFactory(staff=True, is_active=False)).exists()

    def test_shows_an_owner_no_more_than_others(self):
        owner = UserFactory()
        ImageFactory(owner=owner)

        assert not Image.objects.visible_to(owner).exists()

    @pytest.mark.parametrize("model", [Image, Album])
    def test_is_denied_when_nothing_is_said(self, model):
        assert model().visibility == Visibility.PRIVATE


class TestOrder:
    def test_newest_first_tells_equal_times_apart(self):
        now = timezone.now()
        older = ImageFactory(created_at=now - timedelta(seconds=1))
        low, high = sorted(ImageFactory.create_batch(2, created_at=now), key=lambda image: image.pk)

        assert list(Image.objects.newest_first()) == [high, low, older]

    def test_in_album_adds_the_position(self):
        first, second = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[second, first])
        AlbumFactory(images=[first])

        images = Image.objects.in_album(album).order_by("position")

        assert [(image, image.position) for image in images] == [(second, 0), (first, 1)]


class TestAlbumNumbers:
    def test_count_and_previews_are_of_what_somebody_sees(self):
        public = ImageFactory.create_batch(5, public=True)
        private, flagged = ImageFactory(), ImageFactory(public=True, nsfw="flagged")
        album = AlbumFactory(images=[private, flagged, *public])
        visitor, user, staff = people()

        def look(user):
            return album.image_count_for(user), album.preview_ids_for(user)

        assert look(visitor) == look(user) == (5, [str(image.pk) for image in public[:4]])
        assert look(staff) == (7, [str(image.pk) for image in [private, flagged, *public[:2]]])

    def test_the_trash_counts_for_nobody(self):
        image = ImageFactory(public=True)
        album = AlbumFactory(images=[image])
        Image.objects.filter(pk=image.pk).update(deleted_at=timezone.now())

        refresh_albums_of([image.pk])

        album.refresh_from_db()
        assert (album.total_images, album.public_images, album.preview_ids) == (0, 0, [])


def refuses(constraint, make):
    with pytest.raises(IntegrityError) as error, transaction.atomic():
        make()
    # SQLite names the columns of a unique constraint, and nothing else.
    assert constraint in str(error.value) or "UNIQUE" in str(error.value)


class TestConstraints:
    @pytest.mark.parametrize(
        ("constraint", "field"),
        [
            ("image_has_a_size", {"size_bytes": 0}),
            ("image_has_a_size", {"width": 0}),
            ("image_has_a_size", {"height": 0}),
            ("image_numbers_in_range", {"seed": -1}),
            ("image_numbers_in_range", {"steps": 0}),
            ("image_numbers_in_range", {"guidance_scale": -0.5}),
            ("image_visibility_known", {"visibility": "secret"}),
            ("image_format_known", {"format": "gif"}),
            ("image_source_known", {"source_kind": "magic"}),
            ("image_has_a_file", {"storage_name": ""}),
            ("image_has_a_file", {"sha256": ""}),
        ],
    )
    def test_an_image_out_of_range_is_refused(self, constraint, field):
        refuses(constraint, lambda: ImageFactory(**field))

    def test_an_image_may_say_nothing_of_how_it_was_made(self):
        image = ImageFactory(seed=None, steps=None, guidance_scale=None)

        image.full_clean()

    def test_a_source_delivers_each_index_once(self):
        source = {"source_kind": "generation", "source_id": uuid.uuid4()}
        ImageFactory(**source, source_index=0)
        ImageFactory(**source, source_index=1)

        refuses("image_once_per_source", lambda: ImageFactory(**source, source_index=0))

        assert Image.objects.count() == 2

    def test_images_without_a_source_are_many(self):
        ImageFactory.create_batch(2, source_kind="upload", source_id=None)

        assert Image.objects.count() == 2

    def test_an_album_out_of_range_is_refused(self):
        refuses("album_visibility_known", lambda: AlbumFactory(visibility="secret"))
        refuses("album_kind_known", lambda: AlbumFactory(kind="magic"))

    def test_an_image_is_in_an_album_once(self):
        image = ImageFactory()
        album = AlbumFactory(images=[image])

        refuses("album_image_once", lambda: AlbumImage.objects.create(album=album, image=image, position=1))

    @pytest.mark.parametrize("loras", [{"id": 1}, "name", [1], ["name"]])
    def test_adapters_are_a_list_of_objects(self, loras):
        with pytest.raises(ValidationError, match="list of objects"):
            ImageFactory.build(loras=loras).full_clean(exclude=["owner"])


class TestDeleting:
    def test_an_owner_leaves_images_and_albums_behind(self):
        owner = UserFactory()
        image, album = ImageFactory(owner=owner), AlbumFactory(owner=owner)

        owner.delete()

        image.refresh_from_db()
        album.refresh_from_db()
        assert (image.owner, album.owner) == (None, None)

    def test_an_image_leaves_its_albums_without_it(self):
        image = ImageFactory()
        album = AlbumFactory(images=[image], cover=image)

        image.delete()

        album.refresh_from_db()
        assert album.cover is None
        assert not album.images.exists()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL sorts a table this small")
class TestQueryPlans:
    """SQLite has no statistics here, so it plans as for a large table."""

    def plan(self, queryset):
        return queryset.explain()

    def test_the_public_list_reads_its_index_in_order(self):
        plan = self.plan(Image.objects.visible_to(AnonymousUser()).newest_first()[:50])

        assert "USING INDEX image_visible_newest" in plan
        assert "TEMP B-TREE" not in plan

    def test_the_list_of_staff_reads_its_index_in_order(self):
        plan = self.plan(Image.objects.live().newest_first()[:50])

        assert "USING INDEX image_newest" in plan
        assert "TEMP B-TREE" not in plan

    def test_an_album_is_read_in_order(self):
        images = Image.objects.visible_to(AnonymousUser()).in_album(Album(pk=uuid.uuid4()))

        plan = self.plan(images.order_by("position", "id")[:50])

        assert "INDEX album_in_order" in plan
        assert "TEMP B-TREE FOR ORDER BY" not in plan  # sorting images of equal position is all that is left

    def test_the_images_of_a_job_are_found_by_its_id(self):
        assert "INDEX image_once_per_source" in self.plan(Image.objects.filter(source_id=uuid.uuid4()))
