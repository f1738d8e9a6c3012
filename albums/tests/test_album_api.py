import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from albums.models import Album, Image
from albums.services.bulk import refresh_albums_of
from albums.tests.clients import client_of
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

SET = {
    "is_set_template": True,
    "set_rows": [{"suit": "hearts", "rank": str(rank)} for rank in range(1, 9)],
    "base_prompt": "a playing card",
    "prompt_template": "the {rank} of {suit}",
    "style_suffix": "flat colours",
    "example_theme": "the sea",
    "negative_prompt": "text",
    "width": 64,
    "height": 96,
    "loras": [{"id": "7", "weight": 0.5}],
}


@pytest.fixture
def ada():
    return UserFactory(staff=True, username="ada")


@pytest.fixture
def staff(ada):
    return client_of(ada)


def path_of(album, rest=""):
    return f"/api/albums/{album.pk}{rest}"


def ids(images):
    return [str(image.pk) for image in images]


def listed(response):
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


def order(album):
    return [str(pk) for pk in album.memberships.in_order().values_list("image_id", flat=True)]


def errors(response):
    assert response.status_code == 400, response.content
    return {(error["pointer"], error["code"]) for error in response.json()["errors"]}


class TestCreate:
    def test_makes_a_private_album_of_ones_own(self, staff, ada):
        response = staff.post("/api/albums", {"name": " Cards "})

        album = Album.objects.get()
        assert response.status_code == 201
        assert response.headers["Location"] == path_of(album)
        assert response.json() == staff.get(path_of(album)).json()
        assert (album.name, album.owner, album.kind, album.visibility) == ("Cards", ada, "manual", "private")

    def test_takes_what_an_album_has(self, staff):
        fields = {"name": "Cards", "description": "All 54", "kind": "set", "visibility": "public"} | SET

        body = staff.post("/api/albums", fields).json()

        assert fields.items() <= body.items()
        assert body["template_item_count"] == 8
        assert body["template_items_preview"] == SET["set_rows"][:5]
        assert body["lora_count"] == 1

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({}, "/name"),
            ({"name": ""}, "/name"),
            ({"name": " "}, "/name"),
            ({"name": "x" * 201}, "/name"),
            ({"name": None}, "/name"),
            ({"name": 7}, "/name"),
            ({"kind": "magic"}, "/kind"),
            ({"visibility": "secret"}, "/visibility"),
            ({"description": "a\x00"}, "/description"),
            ({"colour": "red"}, "/colour"),
            ({"image_count": 7}, "/image_count"),
            ({"cover": None}, "/cover"),
            ({"id": str(uuid.uuid4())}, "/id"),
            ({"width": 2**31}, "/width"),
            ({"width": 0}, "/width"),
            ({"height": "64"}, "/height"),
            ({"base_prompt": "x" * 2001}, "/base_prompt"),
            ({"example_theme": "x" * 501}, "/example_theme"),
            ({"set_rows": {}}, "/set_rows"),
            ({"set_rows": [{"a": "b"}, ["a"]]}, "/set_rows/1"),
            ({"set_rows": [{"a": "b"}, {"a": 7}]}, "/set_rows/1/a"),
            ({"set_rows": [{"a": None}]}, "/set_rows/0/a"),
            ({"set_rows": [{"": "b"}]}, "/set_rows/0"),
            ({"set_rows": [{"a\x00": "b"}]}, "/set_rows/0"),
            ({"set_rows": [{"a": "\x00"}]}, "/set_rows/0/a"),
            ({"set_rows": [{str(column): "" for column in range(51)}]}, "/set_rows/0"),
            ({"set_rows": [{}] * 10_001}, "/set_rows"),
            ({"loras": [{"id": "7"}, {"weight": 1}]}, "/loras/1/id"),
            ({"loras": [{"id": "7", "weight": 3}]}, "/loras/0/weight"),
            ({"loras": [{"id": "7", "path": "/srv"}]}, "/loras/0/path"),
            ({"loras": ["7"]}, "/loras/0"),
        ],
    )
    def test_refuses_what_makes_no_sense_and_says_where(self, staff, fields, pointer):
        response = staff.post("/api/albums", {"name": "Cards"} | fields if fields else {})

        assert pointer in {place for place, _ in errors(response)}
        assert not Album.objects.exists()


class TestChange:
    def test_leaves_what_is_left_out(self, staff):
        album = AlbumFactory(name="Cards", **SET)

        body = staff.patch(path_of(album), {"description": "All 54"}).json()

        assert body == staff.get(path_of(album)).json()
        assert (SET | {"name": "Cards", "description": "All 54"}).items() <= body.items()

    def test_of_the_visibility_is_seen_at_once(self, staff, visitor):
        album = AlbumFactory()

        staff.patch(path_of(album), {"visibility": "public"})
        assert visitor.get(path_of(album)).status_code == 200
        staff.patch(path_of(album), {"visibility": "private"})
        assert visitor.get(path_of(album)).status_code == 404

    def test_of_the_cover_takes_one_of_its_images(self, staff):
        first, second = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[first, second])

        assert staff.patch(path_of(album), {"cover": str(second.pk)}).json()["cover"]["id"] == str(second.pk)
        assert staff.patch(path_of(album), {"cover": None}).json()["cover"]["id"] == str(first.pk)
        other = staff.patch(path_of(album), {"cover": str(ImageFactory().pk), "name": "no"})
        assert errors(other) == {("/cover", "not_in_album")}
        assert Album.objects.get().name != "no"

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"name": ""}, "/name"),
            ({"loras": [{}]}, "/loras/0/id"),
            ({"cover": "x"}, "/cover"),
            ({"cover": str(uuid.uuid4())}, "/cover"),
            ({"created_at": "2026-01-01T00:00:00Z"}, "/created_at"),
        ],
    )
    def test_refuses_what_makes_no_sense_and_says_where(self, staff, fields, pointer):
        album = AlbumFactory(images=ImageFactory.create_batch(1))

        assert pointer in {place for place, _ in errors(staff.patch(path_of(album), fields))}

    def test_of_nothing_is_none(self, staff):
        album = AlbumFactory()

        assert staff.patch(path_of(album), {}).json() == staff.get(path_of(album)).json()

    def test_as_a_whole_is_not_offered(self, staff):
        assert staff.put(path_of(AlbumFactory()), {"name": "Cards"}).status_code == 405


class TestDelete:
    def test_leaves_the_images(self, staff):
        image = ImageFactory()
        album = AlbumFactory(images=[image])

        assert staff.delete(path_of(album)).status_code == 204

        assert staff.get(path_of(album)).status_code == 404
        assert staff.get(f"/api/images/{image.pk}").status_code == 200


class TestList:
    def test_is_filtered(self, staff):
        cards = AlbumFactory(is_set_template=True, kind="set")
        others = AlbumFactory(public=True)

        assert listed(staff.get("/api/albums?is_set_template=true")) == ids([cards])
        assert listed(staff.get("/api/albums?is_set_template=false")) == ids([others])
        assert listed(staff.get("/api/albums?kind=set")) == ids([cards])
        assert listed(staff.get("/api/albums?visibility=public")) == ids([others])

    @pytest.mark.parametrize(
        "query", ["is_set_template=perhaps", "is_set_template=1", "kind=x", "ordering=owner"]
    )
    def test_refuses_what_makes_no_sense(self, staff, query):
        assert staff.get(f"/api/albums?{query}").status_code == 400

    def test_comes_in_four_orders(self, staff):
        now = timezone.now()
        b = AlbumFactory(name="b", created_at=now)
        c, a = (
            AlbumFactory(name=name, created_at=now - timedelta(hours=hours))
            for name, hours in (("c", 1), ("a", 2))
        )

        for ordering, expected in {
            "created_at": [a, c, b],
            "-created_at": [b, c, a],
            "name": [a, b, c],
            "-name": [c, b, a],
        }.items():
            seen, url = [], f"/api/albums?ordering={ordering}&limit=1"
            while url:
                response = staff.get(url)
                seen += listed(response)
                url = response.json()["next"]
            assert seen == ids(expected), ordering

    @pytest.mark.parametrize("public", [True, False])
    @pytest.mark.parametrize(
        ("query", "index"),
        [
            ("", "album_visible_newest"),
            ("ordering=created_at", "album_visible_newest"),
            ("ordering=name", "album_visible_by_name"),
            ("ordering=-name", "album_visible_by_name"),
        ],
    )
    def test_is_read_from_an_index_without_sorting(self, staff, visitor, query, index, public):
        with CaptureQueriesContext(connection) as queries:
            (visitor if public else staff).get(f"/api/albums?{query}")

        plan = explain(next(sql["sql"] for sql in queries if "ORDER BY" in sql["sql"]))
        assert (index if public else index.replace("_visible", "")) in plan
        assert "SORT" not in plan.upper().replace("SORT KEY", "")
        assert "TEMP B-TREE" not in plan

    @pytest.mark.parametrize(
        ("query", "index"),
        [("is_set_template=true", "album_set_templates"), ("kind=set", "album_by_kind")],
    )
    def test_of_some_is_too(self, staff, query, index):
        with CaptureQueriesContext(connection) as queries:
            staff.get(f"/api/albums?{query}")

        plan = explain(next(sql["sql"] for sql in queries if "ORDER BY" in sql["sql"]))
        assert index in plan


def explain(sql):
    """Return the plan for a table that is too large to be read as a whole."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
            cursor.execute("SET LOCAL enable_sort = off")
            cursor.execute(f"EXPLAIN {sql}")
        else:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        return "\n".join(str(row) for row in cursor.fetchall())


class TestImages:
    @pytest.fixture
    def images(self):
        return ImageFactory.create_batch(3)

    @pytest.fixture
    def album(self):
        return AlbumFactory()

    def test_are_added_in_the_order_given(self, staff, album, images):
        path = path_of(album, "/images")

        first = staff.post(path, {"image_ids": ids(images[2:])})
        second = staff.post(path, {"image_ids": ids([images[1], images[2], images[0], images[1]])})

        assert (first.status_code, first.json()) == (200, {"added": 1, "already": 0})
        assert second.json() == {"added": 2, "already": 1}
        assert order(album) == ids([images[2], images[1], images[0]])
        assert staff.get(path_of(album)).json()["image_count"] == 3

    def test_are_taken_out(self, staff, images):
        album = AlbumFactory(images=images[:2])

        response = staff.delete(path_of(album, "/images"), {"image_ids": ids(images[1:])})

        assert (response.status_code, response.json()) == (200, {"removed": 1})
        assert order(album) == ids(images[:1])

    def test_are_moved(self, staff, images):
        album = AlbumFactory(images=images)
        path = path_of(album, "/images")

        moved = {"image_ids": ids([images[2]]), "before": str(images[0].pk)}
        assert staff.patch(path, moved).status_code == 204
        assert order(album) == ids([images[2], images[0], images[1]])
        assert staff.patch(path, {"image_ids": ids([images[0]])}).status_code == 204
        assert order(album) == ids([images[2], images[1], images[0]])

    def test_that_are_not_there_cannot_be_moved(self, staff, images):
        album = AlbumFactory(images=images[:2])
        path = path_of(album, "/images")

        response = staff.patch(path, {"image_ids": ids(images)})
        assert errors(response) == {("/image_ids/2", "not_in_album")}
        response = staff.patch(path, {"image_ids": ids(images[:1]), "before": str(images[2].pk)})
        assert errors(response) == {("/before", "not_in_album")}

    @pytest.mark.parametrize("method", ["post", "patch", "delete"])
    def test_of_which_one_is_unknown_or_in_the_trash_are_all_refused(self, staff, images, method):
        album = AlbumFactory(images=images[:2])
        trashed = ImageFactory(deleted_at=timezone.now())
        wanted = [*ids(images), str(uuid.uuid4()), str(trashed.pk)]

        response = getattr(staff, method)(path_of(album, "/images"), {"image_ids": wanted})

        assert errors(response) == {
            ("/image_ids/3", "does_not_exist"),
            ("/image_ids/4", "does_not_exist"),
        }
        assert order(album) == ids(images[:2])

    @pytest.mark.parametrize("method", ["post", "patch", "delete"])
    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/image_ids"),
            ({"image_ids": []}, "/image_ids"),
            ({"image_ids": "x"}, "/image_ids"),
            ({"image_ids": ["x"]}, "/image_ids/0"),
            ({"image_ids": [7]}, "/image_ids/0"),
            ({"image_ids": [None]}, "/image_ids/0"),
            ({"image_ids": [str(uuid.uuid4())] * 1001}, "/image_ids"),
            ({"image_ids": [], "colour": "red"}, "/colour"),
        ],
    )
    def test_are_named_by_a_list_of_ids(self, staff, album, method, body, pointer):
        response = getattr(staff, method)(path_of(album, "/images"), body)

        assert pointer in {place for place, _ in errors(response)}

    def test_cost_as_many_queries_when_there_are_many(self, staff):
        counts = []
        for size in (1, 30):
            album, images = AlbumFactory(), ImageFactory.create_batch(size)
            with CaptureQueriesContext(connection) as queries:
                staff.post(path_of(album, "/images"), {"image_ids": ids(images)})
            counts.append(len(queries))

        assert counts[0] == counts[1]


class TestCover:
    def test_is_chosen_among_the_images(self, staff):
        first, second = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[first, second])
        path = path_of(album, "/cover")

        assert staff.post(path, {"image": str(second.pk)}).json()["cover"]["id"] == str(second.pk)
        assert staff.post(path, {"image": None}).json()["cover"]["id"] == str(first.pk)
        for wrong in (str(ImageFactory().pk), str(uuid.uuid4()), "x", 7):
            assert {place for place, _ in errors(staff.post(path, {"image": wrong}))} == {"/image"}
        assert errors(staff.post(path, {})) == {("/image", "required")}

    @pytest.mark.parametrize(
        "change",
        [{"visibility": "private"}, {"nsfw": "flagged"}, {"deleted_at": timezone.now()}],
        ids=["private", "flagged", "trashed"],
    )
    def test_that_is_not_for_everybody_is_not_shown_to_them(self, staff, visitor, change):
        cover, shown = ImageFactory.create_batch(2, public=True)
        album = AlbumFactory(public=True, images=[cover, shown], cover=cover)
        Image.objects.filter(pk=cover.pk).update(**change)
        refresh_albums_of([cover.pk])

        for path in ("/api/albums", path_of(album)):
            text = visitor.get(path).content.decode()
            assert str(cover.pk) not in text
            assert f'"cover":{{"id":"{shown.pk}"' in text
        is_told = "deleted_at" not in change
        assert (staff.get(path_of(album)).json()["cover"]["id"] == str(cover.pk)) == is_told

    def test_is_not_shown_by_a_list_that_is_out_of_date(self, visitor):
        """The row is asked for whatever the album says of it."""
        image = ImageFactory(public=True)
        album = AlbumFactory(public=True, images=[image], cover=image)
        Image.objects.update(visibility="private")

        body = visitor.get(path_of(album)).json()

        assert (body["cover"], body["preview_images"]) == (None, [])


class TestMerge:
    def test_moves_the_images_and_deletes_the_others(self, staff):
        a, b, c = ImageFactory.create_batch(3)
        album, other = AlbumFactory(images=[a]), AlbumFactory(images=[c, a, b])

        response = staff.post(path_of(album, "/merge"), {"albums": ids([other])})

        assert (response.status_code, response.json()["image_count"]) == (200, 3)
        assert order(album) == ids([a, c, b])
        assert staff.get(path_of(other)).status_code == 404

    def test_refuses_all_for_one_that_cannot_be(self, staff):
        album, other = AlbumFactory(), AlbumFactory()
        path = path_of(album, "/merge")

        assert errors(staff.post(path, {"albums": [*ids([other]), str(uuid.uuid4())]})) == {
            ("/albums/1", "does_not_exist")
        }
        assert errors(staff.post(path, {"albums": ids([other, album])})) == {("/albums/1", "invalid")}
        assert errors(staff.post(path, {"albums": []})) == {("/albums", "min_length")}
        assert Album.objects.count() == 2


class TestClone:
    def test_is_a_private_copy_without_images(self, staff, ada):
        album = AlbumFactory(public=True, name="Cards", images=ImageFactory.create_batch(1), **SET)

        response = staff.post(path_of(album, "/clone"))
        named = staff.post(path_of(album, "/clone"), {"name": "Mine"})

        copy = Album.objects.get(name="Copy of Cards")
        assert (response.status_code, response.headers["Location"]) == (201, path_of(copy))
        assert (SET | {"visibility": "private", "image_count": 0}).items() <= response.json().items()
        assert (named.json()["name"], copy.owner) == ("Mine", ada)
        assert errors(staff.post(path_of(album, "/clone"), {"name": ""})) == {("/name", "blank")}


class TestWhoMay:
    CALLS = [
        ("post", "", {"name": "Cards"}),
        ("patch", "", {"name": "Cards"}),
        ("delete", "", {}),
        ("post", "/images", {}),
        ("patch", "/images", {}),
        ("delete", "/images", {}),
        ("post", "/cover", {}),
        ("post", "/merge", {}),
        ("post", "/clone", {}),
    ]

    @pytest.mark.parametrize(("method", "rest", "body"), CALLS)
    def test_change_albums_only_staff(self, visitor, staff, method, rest, body):
        album = AlbumFactory(public=True)
        path = "/api/albums" if (method, rest) == ("post", "") else path_of(album, rest)

        assert getattr(visitor, method)(path, body).status_code == 401
        assert getattr(client_of(UserFactory()), method)(path, body).status_code == 403

    @pytest.mark.parametrize(("method", "rest", "body"), CALLS[1:])
    def test_a_body_is_not_looked_at_for_an_album_that_is_not_there(self, staff, method, rest, body):
        assert getattr(staff, method)(f"/api/albums/{uuid.uuid4()}{rest}", {"x": 1}).status_code == 404


class TestAudit:
    """Whatever staff changes is recorded, whatever way it was written."""

    def test_has_an_entry_for_every_change(self, client, ada):
        client.force_login(ada)
        images = ImageFactory.create_batch(2)
        album, other = AlbumFactory(name="Cards", images=images), AlbumFactory()

        for method, path, body in [
            ("post", "/api/albums", {"name": "new"}),
            ("patch", path_of(album), {"name": "renamed"}),
            ("post", path_of(album, "/images"), {"image_ids": ids(images)}),
            ("patch", path_of(album, "/images"), {"image_ids": ids(images)}),
            ("post", path_of(album, "/cover"), {"image": str(images[0].pk)}),
            ("delete", path_of(album, "/images"), {"image_ids": ids(images)}),
            ("post", path_of(album, "/merge"), {"albums": ids([other])}),
            ("post", path_of(album, "/clone"), {}),
            ("delete", path_of(album), {}),
        ]:
            response = getattr(client, method)(path, body, content_type="application/json")
            assert response.status_code < 300, response.content
            entries = AuditEntry.objects.filter(request_id=response["X-Request-ID"])
            assert {entry.actor_name for entry in entries} == {"ada"}, (method, path)

    def test_does_not_tell_the_prompts_of_a_set(self, client, ada):
        client.force_login(ada)
        album = AlbumFactory()

        client.patch(path_of(album), SET, content_type="application/json")

        entry = AuditEntry.objects.get(action="album.change")
        assert "hearts" not in str(entry.after)
        assert "flat colours" not in str(entry.after)
        assert entry.after["width"] == 64


class TestSpeed:
    def test_a_page_costs_two_queries(self, staff, visitor, django_assert_num_queries):
        images = ImageFactory.create_batch(5, public=True)
        for _ in range(20):
            AlbumFactory(public=True, cover=images[4], images=images, **SET)

        for client in (staff, visitor):
            with django_assert_num_queries(2):
                assert len(listed(client.get("/api/albums"))) == 20
