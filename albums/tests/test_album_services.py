import random
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Barrier

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from albums import services
from albums.models import PREVIEWS, Album, BarredContent, Image
from albums.services.bulk import refresh_albums_of
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.errors import Invalid

pytestmark = pytest.mark.django_db


def order(album):
    return list(album.memberships.in_order().values_list("image_id", flat=True))


def ids(images):
    return [image.pk for image in images]


class TestUpdateAlbum:
    def test_changes_what_it_is_told_to(self):
        album = AlbumFactory(description="before")

        services.update_album(album, name="after")

        album.refresh_from_db()
        assert (album.name, album.description) == ("after", "before")

    def test_leaves_alone_what_others_have_changed(self):
        album = AlbumFactory()
        Album.objects.update(description="theirs")

        services.update_album(album, name="ours")

        album.refresh_from_db()
        assert (album.name, album.description) == ("ours", "theirs")

    @pytest.mark.parametrize("changes", [{"name": ""}, {"name": "x" * 201}, {"kind": "magic"}])
    def test_refuses_fields_out_of_range(self, changes):
        album = AlbumFactory(name="before")

        with pytest.raises(ValidationError):
            services.update_album(album, **changes)

        assert Album.objects.get().name == "before"

    def test_says_so_when_the_album_is_gone(self):
        album = AlbumFactory()
        Album.objects.all().delete()

        with pytest.raises(services.AlbumGone):
            services.update_album(album, name="after")


class TestDeleteAlbum:
    def test_leaves_the_images(self, django_assert_max_num_queries):
        images = ImageFactory.create_batch(3)
        album = AlbumFactory(images=images)
        other = AlbumFactory(images=images)

        locks = 2 * connection.features.has_select_for_update  # of set runs and jobs that lose it
        with django_assert_max_num_queries(10 + locks):
            services.delete_album(album)

        assert list(Album.objects.all()) == [other]
        assert order(other) == ids(images)

    def test_twice_is_refused(self):
        album = AlbumFactory()
        services.delete_album(Album.objects.get())

        with pytest.raises(services.AlbumGone):
            services.delete_album(album)


class TestCloneAlbum:
    def test_copies_the_set_template_and_no_images(self):
        owner = UserFactory()
        album = AlbumFactory(
            public=True,
            name="Cards",
            description="All 54",
            kind="set",
            is_set_template=True,
            set_rows=[{"suit": "hearts"}],
            prompt_template="the {suit}",
            width=64,
            loras=[{"id": "7", "weight": 1.0}],
            images=ImageFactory.create_batch(2),
        )

        copy = services.clone_album(album, owner=owner)

        copy.refresh_from_db()
        assert copy.pk != album.pk
        assert (copy.name, copy.owner, copy.visibility) == ("Copy of Cards", owner, "private")
        assert (copy.total_images, copy.preview_ids, order(copy)) == (0, [], [])
        for field in services.albums.CLONED:
            assert getattr(copy, field) == getattr(album, field), field

    def test_takes_a_name_and_shortens_its_own(self):
        assert services.clone_album(AlbumFactory(), name="Mine", owner=None).name == "Mine"
        assert len(services.clone_album(AlbumFactory(name="x" * 200), owner=None).name) == 200


class TestRemoveImages:
    def test_closes_no_gap_and_changes_no_order(self):
        first, second, third = ImageFactory.create_batch(3)
        album = AlbumFactory(images=[first, second, third])

        assert services.remove_images_from_album(album, [second, ImageFactory()]) == 1

        assert order(album) == ids([first, third])

    def test_takes_away_the_cover_with_its_image(self):
        first, second = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[first, second], cover=first)
        other = AlbumFactory(images=[first], cover=first)

        services.remove_images_from_album(album, [second])
        album.refresh_from_db()
        assert album.cover == first
        services.remove_images_from_album(album, [first])
        album.refresh_from_db()
        assert album.cover is None
        other.refresh_from_db()
        assert other.cover == first
        entry = AuditEntry.objects.filter(action="album.remove_images").latest("pk")
        assert (entry.before["cover"], entry.after["cover"]) == (str(first.pk), None)


class TestMoveImages:
    @pytest.fixture
    def images(self):
        return ImageFactory.create_batch(5)

    @pytest.fixture
    def album(self, images):
        return AlbumFactory(images=images)

    @pytest.mark.parametrize(
        ("moved", "before", "result"),
        [
            ([3], 0, [3, 0, 1, 2, 4]),
            ([0], 4, [1, 2, 3, 0, 4]),
            ([0], None, [1, 2, 3, 4, 0]),
            ([4, 0], 2, [1, 4, 0, 2, 3]),
            ([2], 3, [0, 1, 2, 3, 4]),
            ([4, 3, 2, 1, 0], None, [4, 3, 2, 1, 0]),
            ([1, 3, 1], 0, [1, 3, 0, 2, 4]),
        ],
    )
    def test_puts_them_where_they_belong(self, album, images, moved, before, result):
        services.move_images(
            album, [images[i] for i in moved], before=None if before is None else images[before]
        )

        assert order(album) == [images[i].pk for i in result]

    def test_tells_equal_positions_apart(self, album, images):
        album.memberships.update(position=7)
        images.sort(key=lambda image: image.pk)

        services.move_images(album, [images[4]], before=images[2])

        assert order(album) == ids(images[i] for i in (0, 1, 4, 2, 3))

    def test_again_and_again_is_as_a_list_would_do_it(self, album, images):
        chance = random.Random(4)
        expected = ids(images)
        for _ in range(25):
            moved = chance.sample(images, chance.randint(1, 3))
            before = chance.choice([None, *(image for image in images if image not in moved)])
            services.move_images(album, moved, before=before)
            expected = [pk for pk in expected if pk not in ids(moved)]
            place = expected.index(before.pk) if before else len(expected)
            expected[place:place] = ids(moved)
            assert order(album) == expected

    def test_chooses_the_previews_again(self, album, images):
        services.move_images(album, [images[4]], before=images[0])

        album.refresh_from_db()
        assert album.preview_ids == [str(images[i].pk) for i in (4, 0, 1, 2)]

    def test_takes_as_many_queries_for_many(self):
        counts = []
        for size in (2, 40):
            images = ImageFactory.create_batch(size)
            album = AlbumFactory(images=images)
            with CaptureQueriesContext(connection) as queries:
                services.move_images(album, images[1:], before=images[0])
            counts.append(len(queries))

        assert counts[0] == counts[1]

    @pytest.mark.parametrize("before_itself", [True, False])
    def test_refuses_what_has_no_meaning(self, album, images, before_itself):
        before = images[0] if before_itself else ImageFactory()

        with pytest.raises(Invalid) as refusal:
            services.move_images(album, images[:2], before=before)

        assert refusal.value.pointer == "/before"
        assert order(album) == ids(images)

    def test_refuses_all_for_one_that_is_not_there(self, album, images):
        with pytest.raises(services.ImageNotInAlbum) as refusal:
            services.move_images(album, [images[1], ImageFactory()], before=images[0])

        assert refusal.value.pointer == "/image_ids/1"
        assert order(album) == ids(images)


class TestPositions:
    """Images that are given a position when they are added."""

    def test_begin_where_they_are_told_to(self):
        album, first, second = AlbumFactory(), *ImageFactory.create_batch(2)

        services.add_images_to_album(album, [first, second], position=7)

        assert dict(album.memberships.values_list("image_id", "position")) == {first.pk: 7, second.pk: 8}

    def test_room_is_made_only_where_somebody_stands(self):
        images = ImageFactory.create_batch(3)
        album = AlbumFactory(images=images)

        services.make_room(album, 3)
        assert list(album.memberships.in_order().values_list("position", flat=True)) == [0, 1, 2]
        services.make_room(album, 1)

        assert list(album.memberships.in_order().values_list("position", flat=True)) == [0, 2, 3]
        assert order(album) == ids(images)


def pictures(count):
    """Images with different bytes."""
    return [ImageFactory(content=picture(color=(number, 0, 0))) for number in range(count)]


class TestQuarantine:
    def test_takes_images_out_of_sight_and_keeps_the_reason(self):
        seen, hidden = ImageFactory(public=True), ImageFactory()
        album = AlbumFactory(public=True, images=[seen, hidden])

        assert services.quarantine_images([seen.pk, hidden.pk], reason="somebody asked") == 2
        assert services.quarantine_images([seen.pk, hidden.pk], reason="again") == 0

        for image in (seen, hidden):
            image.refresh_from_db()
            assert (image.visibility, image.deleted_at is not None) == ("private", True)
        album.refresh_from_db()
        assert (album.total_images, album.public_images) == (0, 0)
        entries = AuditEntry.objects.filter(action="image.quarantine")
        assert {entry.target_id: entry.after["reason"] for entry in entries} == dict.fromkeys(
            [str(seen.pk), str(hidden.pk)], "somebody asked"
        )

    def test_bars_the_content_until_an_image_of_it_is_restored(self):
        image, other = pictures(2)
        services.quarantine_images([image.pk, other.pk], reason="somebody asked")
        assert services.contents_taken_down([image.sha256, "0" * 64]) == {image.sha256}

        services.restore_images([image.pk])
        assert services.contents_taken_down([image.sha256, other.sha256]) == {other.sha256}

        services.trash_images([image.pk])
        assert services.contents_taken_down([image.sha256]) == set()

        assert services.quarantine_images([image.pk], reason="once more") == 1
        assert services.contents_taken_down([image.sha256]) == {image.sha256}

    def test_what_is_barred_is_one_question_whatever_was_taken_down(self, django_assert_num_queries):
        images = pictures(3)
        services.quarantine_images([image.pk for image in images], reason="somebody asked")

        with django_assert_num_queries(1) as asked:
            assert len(services.contents_taken_down(image.sha256 for image in images)) == 3
        assert "auditentry" not in asked.captured_queries[0]["sql"]

    def test_what_was_taken_down_before_there_were_bars_is_barred(self):
        trashed, purged, restored, only_deleted = pictures(4)
        services.quarantine_images([trashed.pk, purged.pk, restored.pk], reason="somebody asked")
        services.restore_images([restored.pk])
        services.purge_images([purged.pk])
        services.trash_images([only_deleted.pk])
        BarredContent.objects.all().delete()

        import_module("albums.migrations.0007_barred_contents").bar_what_was_taken_down(apps, None)

        contents = [image.sha256 for image in (trashed, purged, restored, only_deleted)]
        assert services.contents_taken_down(contents) == {trashed.sha256, purged.sha256}


class TestFarOut:
    """Somebody has typed the largest position there is."""

    @pytest.fixture
    def images(self):
        return ImageFactory.create_batch(3)

    @pytest.fixture
    def album(self, images):
        album = AlbumFactory(images=images)
        services.place_images(album, {images[0].pk: 2**31 - 1})
        return album

    def test_there_is_room_behind(self, album, images):
        last = ImageFactory()

        services.add_images_to_album(album, [last])

        places = album.memberships.in_order().values_list("image", "position")
        assert list(places) == [(images[1].pk, 0), (images[2].pk, 1), (images[0].pk, 2), (last.pk, 3)]

    def test_there_is_room_in_front(self, album, images):
        services.move_images(album, [images[1]], before=images[0])

        assert order(album) == ids([images[2], images[1], images[0]])

    def test_albums_are_merged(self, album, images):
        other = AlbumFactory(images=[ImageFactory()])
        services.place_images(other, {other.memberships.get().image_id: 2**31 - 1})
        last = order(other)

        services.merge_albums(album, [other])

        assert order(album) == [*ids([images[1], images[2], images[0]]), *last]


class TestSetCover:
    def test_takes_an_image_of_the_album_or_none(self):
        image = ImageFactory()
        album = AlbumFactory(images=[image])

        assert services.set_cover(album, image).cover == image
        assert services.set_cover(album, None).cover is None

    def test_refuses_every_other(self):
        trashed = ImageFactory(deleted_at=timezone.now())
        album = AlbumFactory(images=[trashed])

        for image in (trashed, ImageFactory()):
            with pytest.raises(services.ImageNotInAlbum):
                services.set_cover(album, image)

        album.refresh_from_db()
        assert album.cover is None


class TestMergeAlbums:
    def test_appends_the_others_in_order_and_each_image_once(self):
        a, b, c, d, e = ImageFactory.create_batch(5)
        album = AlbumFactory(images=[b])
        others = [AlbumFactory(images=[d, b, c]), AlbumFactory(images=[a, d, e])]
        bystander = AlbumFactory(images=[e])

        assert services.merge_albums(album, others) == 4

        assert order(album) == ids([b, d, c, a, e])
        assert set(Album.objects.all()) == {album, bystander}
        assert order(bystander) == [e.pk]
        album.refresh_from_db()
        assert (album.total_images, album.preview_ids) == (5, [str(pk) for pk in ids([b, d, c, a])])

    def test_takes_along_what_is_in_the_trash(self):
        image = ImageFactory(deleted_at=timezone.now())
        album = AlbumFactory()

        services.merge_albums(album, [AlbumFactory(images=[image])])

        assert order(album) == [image.pk]

    def test_names_nothing_twice(self):
        album, other = AlbumFactory(), AlbumFactory(images=[ImageFactory()])

        assert services.merge_albums(album, [other, other]) == 1

    def test_does_nothing_unless_it_does_all(self):
        album, gone, other = AlbumFactory(), AlbumFactory(), AlbumFactory(images=[ImageFactory()])
        Album.objects.filter(pk=gone.pk).delete()

        with pytest.raises(services.AlbumGone):
            services.merge_albums(album, [other, gone])

        assert len(order(other)) == 1
        assert order(album) == []

    def test_refuses_to_swallow_itself(self):
        album = AlbumFactory()

        with pytest.raises(services.MergedWithItself) as refusal:
            services.merge_albums(album, [AlbumFactory(), album])

        assert refusal.value.pointer == "/albums/1"
        assert Album.objects.count() == 2

    def test_takes_as_many_queries_for_many_images(self):
        counts = []
        for size in (1, 30):
            other = AlbumFactory(images=ImageFactory.create_batch(size))
            with CaptureQueriesContext(connection) as queries:
                services.merge_albums(AlbumFactory(), [other])
            counts.append(len(queries))

        assert counts[0] == counts[1]


class TestSummaries:
    """Counts and previews are stored: whatever happens, they are what counting would find."""

    @pytest.mark.parametrize("seed", range(3))
    def test_are_right_whatever_happens(self, seed):
        chance = random.Random(seed)
        images = ImageFactory.create_batch(9)
        albums = AlbumFactory.create_batch(4)
        for _ in range(40):
            happen(chance, albums, images)
            for album in albums:
                album.refresh_from_db()
                assert stored(album) == counted(album)


def happen(chance, albums, images):
    """Let one thing happen that changes what albums show."""
    album = chance.choice(albums)
    some = chance.sample(images, chance.randint(1, 4))
    inside = list(Image.objects.in_album(album))

    def images_become(**fields):
        Image.objects.filter(pk__in=ids(some)).update(**fields)
        refresh_albums_of(ids(some))

    def merge():
        if len(albums) > 2:
            other = chance.choice([other for other in albums if other != album])
            services.merge_albums(album, [other])
            albums.remove(other)

    def delete():
        if len(albums) > 2:
            services.delete_album(album)
            albums.remove(album)

    def purge():
        holders = list(Album.objects.filter(images=some[0]).values_list("pk", flat=True))
        if len(images) > 5:
            images.remove(some[0])
            some[0].delete()
            services.refresh_summaries(holders)

    def move():
        if inside:
            services.move_images(album, [chance.choice(inside)], before=None)

    chance.choice(
        [
            lambda: services.add_images_to_album(album, some),
            lambda: services.add_images_to_album(album, some),
            lambda: services.remove_images_from_album(album, some),
            lambda: images_become(deleted_at=timezone.now()),
            lambda: images_become(deleted_at=None),
            lambda: images_become(visibility=chance.choice(["public", "private"])),
            lambda: images_become(nsfw=chance.choice(["unknown", "safe", "flagged"])),
            lambda: albums.append(services.clone_album(album, owner=None)),
            merge,
            delete,
            purge,
            move,
        ]
    )()


def stored(album):
    return (album.total_images, album.public_images, album.preview_ids, album.public_preview_ids)


def counted(album):
    live = [place.image for place in album.memberships.in_order().select_related("image")]
    live = [image for image in live if image.deleted_at is None]
    public = [image for image in live if image.visibility == "public" and image.nsfw != "flagged"]
    first, first_public = ([str(image.pk) for image in group[:PREVIEWS]] for group in (live, public))
    return (len(live), len(public), first, first_public)


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    def in_threads(self, *actions):
        def run(action):
            try:
                return action()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(len(actions)) as pool:
            return list(pool.map(run, actions))

    def test_some_come_and_some_go_and_the_count_is_right(self):
        images = ImageFactory.create_batch(8)
        album = AlbumFactory(images=images[:4])

        self.in_threads(
            *(lambda image=image: services.remove_images_from_album(album, [image]) for image in images[:4]),
            *(lambda image=image: services.add_images_to_album(album, [image]) for image in images[4:]),
        )

        album.refresh_from_db()
        assert stored(album) == counted(album)
        assert set(order(album)) == set(ids(images[4:]))

    def test_two_albums_that_swallow_each_other_leave_one(self):
        first, second = (AlbumFactory(images=[ImageFactory()]) for _ in range(2))
        ready = Barrier(2)

        def merge(album, other):
            album, other = (Album.objects.get(pk=each.pk) for each in (album, other))
            ready.wait()
            try:
                services.merge_albums(album, [other])
            except services.AlbumGone:
                return 0
            return 1

        done = self.in_threads(lambda: merge(first, second), lambda: merge(second, first))

        assert sum(done) == 1
        assert Album.objects.get().total_images == 2


class TestAudit:
    """Recorded beside what signals do not see."""

    def test_of_places_and_merges(self):
        images = ImageFactory.create_batch(2)
        album, other = AlbumFactory(images=images), AlbumFactory(name="other")

        services.move_images(album, images[1:], before=images[0])
        services.remove_images_from_album(album, images[:1])
        services.merge_albums(album, [Album.objects.get(pk=other.pk)])

        moved, removed, merged = AuditEntry.objects.filter(target_id=str(album.pk)).order_by("id")
        assert (moved.action, moved.after["before"]) == ("album.move_images", str(images[0].pk))
        assert (removed.action, removed.after) == ("album.remove_images", {"removed": 1})
        assert (merged.action, merged.before) == ("album.merge", {"albums": {str(other.pk): "other"}})
