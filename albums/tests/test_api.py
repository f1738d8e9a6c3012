import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from albums.api.files import file_name
from albums.models import AlbumImage
from albums.services import refresh_summaries
from albums.tests.clients import client_of, ids
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from imagehub import storage
from imagehub.accounts.tests.factories import UserFactory
from imagehub.roots import media_root

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["a visitor", "somebody signed in"])
def outsider(request):
    return client_of(UserFactory() if request.param == "somebody signed in" else None)


def content(response):
    return b"".join(response.streaming_content)


def image_paths(image):
    return [f"/api/images/{image.pk}{end}" for end in ("", "/file", "/thumbnail", "/thumbnail?size=150")]


class TestVisibility:
    def test_public_images_are_for_everybody(self, outsider, staff):
        image = ImageFactory(public=True)

        for client in (outsider, staff):
            assert ids(client.get("/api/images")) == [str(image.pk)]
            for path in image_paths(image):
                assert client.get(path).status_code == 200

    def test_private_images_are_for_staff(self, outsider, staff):
        image = ImageFactory()

        assert ids(outsider.get("/api/images")) == []
        assert ids(staff.get("/api/images")) == [str(image.pk)]
        for path in image_paths(image):
            assert outsider.get(path).status_code == 404
            assert staff.get(path).status_code == 200

    def test_hidden_and_unknown_images_answer_the_same(self, outsider):
        hidden = ImageFactory()

        for path in image_paths(hidden):
            answers = []
            for pk in (str(hidden.pk), str(uuid.uuid4())):
                response = outsider.get(path.replace(str(hidden.pk), pk))
                answers.append(
                    {
                        name: value
                        for name, value in response.json().items()
                        if name not in {"instance", "request_id"}
                    }
                )
            assert answers[0] == answers[1]

    def test_a_private_image_does_not_say_which_thumbnails_exist(self, outsider):
        assert outsider.get(f"/api/images/{ImageFactory().pk}/thumbnail?size=7").status_code == 404

    def test_private_albums_are_for_staff(self, outsider, staff):
        public, private = AlbumFactory(public=True), AlbumFactory()

        assert ids(outsider.get("/api/albums")) == [str(public.pk)]
        assert ids(staff.get("/api/albums")) == [str(private.pk), str(public.pk)]
        assert outsider.get(f"/api/albums/{private.pk}").status_code == 404
        assert staff.get(f"/api/albums/{private.pk}").status_code == 200
        assert outsider.get(f"/api/albums/{public.pk}").status_code == 200

    def test_a_private_image_is_absent_from_a_public_album(self, outsider, staff):
        public, private = ImageFactory(public=True), ImageFactory()
        album = AlbumFactory(public=True, cover=private, images=[private, public])

        for path in ("/api/albums", f"/api/albums/{album.pk}"):
            body = outsider.get(path).json()
            body = body["results"][0] if "results" in body else body
            assert body["image_count"] == 1
            assert body["cover"]["id"] == str(public.pk)  # its first image stands in
            assert [image["id"] for image in body["preview_images"]] == [str(public.pk)]
            assert str(private.pk) not in str(body)
        body = staff.get(f"/api/albums/{album.pk}").json()
        assert body["image_count"] == 2
        assert body["cover"]["id"] == str(private.pk)
        assert ids(outsider.get(f"/api/images?album={album.pk}")) == [str(public.pk)]
        assert ids(staff.get(f"/api/images?album={album.pk}")) == [str(private.pk), str(public.pk)]

    def test_a_private_album_answers_like_one_that_does_not_exist(self, outsider, staff):
        image = ImageFactory(public=True)
        album = AlbumFactory(images=[image])

        assert ids(outsider.get(f"/api/images?album={album.pk}")) == []
        assert ids(outsider.get(f"/api/images?album={uuid.uuid4()}")) == []
        assert ids(staff.get(f"/api/images?album={album.pk}")) == [str(image.pk)]

    def test_only_staff_is_told_where_files_lie_and_who_owns_them(self, outsider, staff, settings):
        image = ImageFactory(public=True, owner=UserFactory(username="olivia"))

        for path in ("/api/images", f"/api/images/{image.pk}"):
            assert "olivia" not in outsider.get(path).content.decode()
            assert str(media_root()) not in outsider.get(path).content.decode()
        body = staff.get(f"/api/images/{image.pk}").json()
        assert body["owner"] == "olivia"
        assert body["storage_path"] == str(media_root() / image.storage_name)

    def test_nobody_is_told_where_an_adapter_lies(self, visitor, staff):
        loras = [
            {"id": "7", "name": "watercolour", "weight": 0.8, "path": "/srv/loras/watercolour.safetensors"}
        ]
        image = ImageFactory(public=True, loras=loras)

        for client in (visitor, staff):
            assert client.get(f"/api/images/{image.pk}").json()["loras"] == [
                {"id": "7", "name": "watercolour", "weight": 0.8}
            ]

    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
    def test_nothing_is_changed_here(self, visitor, method):
        image, album = ImageFactory(public=True), AlbumFactory(public=True)

        for path in ("/api/images", f"/api/images/{image.pk}", "/api/albums", f"/api/albums/{album.pk}"):
            assert getattr(visitor, method)(path).status_code in {401, 405}


class TestImages:
    def test_an_image_has_the_fields_of_the_contract(self, visitor):
        job = uuid.uuid4()
        image = ImageFactory(
            public=True,
            prompt="a red heart",
            negative_prompt="",
            seed=42,
            steps=25,
            guidance_scale=4.5,
            scheduler="ddim",
            base_model="starter",
            source_kind="generation",
            source_id=job,
        )

        body = visitor.get(f"/api/images/{image.pk}").json()

        assert body.pop("created_at").endswith("Z")
        assert body == {
            "id": str(image.pk),
            "name": image.name,
            "storage_name": image.storage_name,
            "file_url": f"/api/images/{image.pk}/file",
            "thumbnail_url": f"/api/images/{image.pk}/thumbnail",
            "width": 8,
            "height": 8,
            "size_bytes": len(picture()),
            "format": "png",
            "visibility": "public",
            "nsfw": "unknown",
            "starred": False,
            "rating": 0,
            "prompt": "a red heart",
            "negative_prompt": "",
            "seed": 42,
            "steps": 25,
            "guidance_scale": 4.5,
            "scheduler": "ddim",
            "base_model": "starter",
            "loras": [],
            "source": {"kind": "generation", "id": str(job)},
            "placeholder": None,
        }

    def test_an_image_may_be_nobodys(self, staff):
        assert staff.get(f"/api/images/{ImageFactory(owner=None).pk}").json()["owner"] is None

    def test_the_newest_come_first(self, visitor):
        now = timezone.now()
        older = ImageFactory(public=True, created_at=now - timedelta(hours=1))
        newer = ImageFactory(public=True, created_at=now)

        assert ids(visitor.get("/api/images")) == [str(newer.pk), str(older.pk)]

    def test_an_album_comes_in_its_order(self, visitor):
        images = ImageFactory.create_batch(5, public=True)
        album = AlbumFactory(public=True, images=images)

        first = visitor.get(f"/api/images?album={album.pk}&limit=3")
        rest = visitor.get(first.json()["next"])

        assert ids(first) + ids(rest) == [str(image.pk) for image in images]
        assert rest.json()["next"] is None

    def test_pages_of_equal_times_neither_skip_nor_repeat(self, visitor):
        now = timezone.now()
        images = ImageFactory.create_batch(7, public=True, created_at=now)

        seen, path = [], "/api/images?limit=2"
        while path:
            response = visitor.get(path)
            seen += ids(response)
            path = response.json()["next"]

        assert seen == sorted((str(image.pk) for image in images), reverse=True)

    def test_filters_keep_what_they_name(self, staff):
        job = uuid.uuid4()
        now = timezone.now()
        wanted = ImageFactory(
            base_model="starter",
            seed=42,
            source_kind="generation",
            source_id=job,
            visibility="public",
            created_at=now,
        )
        ImageFactory(base_model="other", seed=43, created_at=now - timedelta(days=2))
        yesterday = (now - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

        for query in (
            "base_model=starter",
            "seed=42",
            "source=generation",
            f"source={job}",
            "visibility=public",
            f"created_after={yesterday}",
        ):
            assert ids(staff.get(f"/api/images?{query}")) == [str(wanted.pk)], query
        assert str(wanted.pk) not in ids(staff.get(f"/api/images?created_before={yesterday}"))
        assert len(ids(staff.get(f"/api/images?created_before={yesterday}"))) == 1
        assert ids(staff.get(f"/api/images?source={uuid.uuid4()}")) == []

    def test_no_filter_shows_an_outsider_more(self, outsider):
        ImageFactory()

        assert ids(outsider.get("/api/images?visibility=private")) == []

    @pytest.mark.parametrize(
        "query",
        [
            "album=cards",
            "source=magic",
            "seed=x",
            "seed=1.5",
            "seed=-1",
            "visibility=secret",
            "created_after=yesterday",
            "created_before=2026-13-01",
            "base_model=%00",
            "colour=red",
        ],
    )
    def test_a_filter_that_makes_no_sense_is_refused(self, visitor, query):
        response = visitor.get(f"/api/images?{query}")

        assert response.status_code == 400
        assert response.json()["errors"][0]["pointer"] == f"/{query.partition('=')[0]}"

    @pytest.mark.parametrize("query", ["album=", "album=%20", "seed=", "source="])
    def test_an_empty_filter_is_none(self, visitor, query):
        image = ImageFactory(public=True)

        assert ids(visitor.get(f"/api/images?{query}")) == [str(image.pk)]

    def test_a_seed_beyond_every_number_is_none(self, visitor):
        assert ids(visitor.get(f"/api/images?seed={10**30}")) == []

    def test_what_is_no_id_is_not_found(self, visitor):
        assert visitor.get("/api/images/7").status_code == 404
        assert visitor.get("/api/albums/7").status_code == 404


class TestQueryCounts:
    """As many queries for sixty rows as for one."""

    @pytest.fixture(params=[1, 60])
    def rows(self, request):
        return request.param

    def test_of_images(self, staff, visitor, rows, django_assert_num_queries):
        ImageFactory.create_batch(rows, public=True, owner=UserFactory())

        for client in (staff, visitor):
            with django_assert_num_queries(1):
                assert len(ids(client.get("/api/images?limit=100"))) == rows

    def test_of_the_images_of_an_album(self, visitor, rows, django_assert_num_queries):
        album = AlbumFactory(public=True, images=ImageFactory.create_batch(rows, public=True))

        with django_assert_num_queries(2):  # the album, its images
            assert len(ids(visitor.get(f"/api/images?limit=100&album={album.pk}"))) == rows

    def test_of_albums(self, staff, visitor, rows, django_assert_num_queries):
        images = ImageFactory.create_batch(5, public=True)
        for _ in range(rows):
            AlbumFactory(public=True, cover=images[0], images=images)

        for client in (staff, visitor):
            with django_assert_num_queries(2):  # the albums with their counts, the pictures
                response = client.get("/api/albums?limit=100")
            assert [album["image_count"] for album in response.json()["results"]] == [5] * rows


class TestAlbums:
    def test_an_album_has_the_fields_of_the_contract(self, visitor):
        images = ImageFactory.create_batch(6, public=True)
        album = AlbumFactory(
            public=True, name="Cards", description="All 54", kind="set", cover=images[5], images=images
        )

        body = visitor.get(f"/api/albums/{album.pk}").json()

        def preview(image):
            path = f"/api/images/{image.pk}"
            return {"id": str(image.pk), "file_url": f"{path}/file", "thumbnail_url": f"{path}/thumbnail"}

        assert body.pop("created_at").endswith("Z")
        assert body == {
            "id": str(album.pk),
            "name": "Cards",
            "description": "All 54",
            "kind": "set",
            "visibility": "public",
            "cover": preview(images[5]),
            "image_count": 6,
            "preview_images": [preview(image) for image in images[:4]],
            "is_set_template": False,
            "set_rows": [],
            "base_prompt": "",
            "prompt_template": "",
            "style_suffix": "",
            "example_theme": "",
            "negative_prompt": "",
            "width": None,
            "height": None,
            "loras": [],
            "template_item_count": 0,
            "template_items_preview": [],
            "lora_count": 0,
        }

    def test_previews_follow_the_order_of_the_album(self, visitor):
        first, second = ImageFactory.create_batch(2, public=True)
        album = AlbumFactory(public=True)
        AlbumImage.objects.create(album=album, image=first, position=2)
        AlbumImage.objects.create(album=album, image=second, position=1)
        refresh_summaries([album.pk])

        previews = visitor.get(f"/api/albums/{album.pk}").json()["preview_images"]

        assert [image["id"] for image in previews] == [str(second.pk), str(first.pk)]

    def test_an_empty_album_has_nothing_to_show(self, visitor):
        body = visitor.get(f"/api/albums/{AlbumFactory(public=True).pk}").json()

        assert (body["cover"], body["image_count"], body["preview_images"]) == (None, 0, [])

    def test_are_filtered_by_kind(self, visitor):
        AlbumFactory(public=True)
        cards = AlbumFactory(public=True, kind="set")

        assert ids(visitor.get("/api/albums?kind=set")) == [str(cards.pk)]
        assert visitor.get("/api/albums?kind=magic").status_code == 400


class TestFile:
    @pytest.fixture
    def image(self):
        return ImageFactory(public=True, name="A red heart")

    @pytest.fixture
    def path(self, image):
        return f"/api/images/{image.pk}/file"

    def test_is_the_stored_bytes(self, visitor, path):
        response = visitor.get(path)

        assert content(response) == picture()
        assert response["Content-Length"] == str(len(picture()))

    def test_leaves_a_browser_nothing_to_guess(self, visitor, path, image):
        response = visitor.get(path)

        assert response["Content-Type"] == "image/png"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Content-Disposition"] == 'inline; filename="A red heart.png"'
        assert response["ETag"] == f'"{image.sha256}"'
        assert response["Accept-Ranges"] == "bytes"

    def test_is_given_to_whoever_accepts_pictures_only(self, visitor, path):
        assert visitor.get(path, HTTP_ACCEPT="image/png").status_code == 200

    def test_may_be_kept_by_anybody_only_when_public(self, staff, path):
        private = ImageFactory()

        assert staff.get(path)["Cache-Control"] == "public, max-age=3600"
        assert staff.get(f"/api/images/{private.pk}/file")["Cache-Control"] == "private, no-cache"

    @pytest.mark.parametrize("form", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
    def test_is_not_sent_again_to_whoever_has_it(self, visitor, path, image, form):
        response = visitor.get(path, HTTP_IF_NONE_MATCH=form.format(image.sha256))

        assert response.status_code == 304
        assert response["ETag"] == f'"{image.sha256}"'
        assert response["Cache-Control"] == "public, max-age=3600"
        assert not response.content

    def test_is_sent_to_whoever_has_another(self, visitor, path):
        assert visitor.get(path, HTTP_IF_NONE_MATCH='"other"').status_code == 200

    def test_hides_behind_no_etag(self, visitor):
        image = ImageFactory()

        response = visitor.get(f"/api/images/{image.pk}/file", HTTP_IF_NONE_MATCH=f'"{image.sha256}"')

        assert response.status_code == 404

    @pytest.mark.parametrize(
        ("asked", "start", "stop"),
        [("bytes=0-9", 0, 10), ("bytes=10-", 10, None), ("bytes=-10", -10, None), ("bytes=5-99999", 5, None)],
    )
    def test_is_sent_in_part(self, visitor, path, asked, start, stop):
        data = picture()
        part = data[start:stop]
        first = data.index(part)

        response = visitor.get(path, HTTP_RANGE=asked)

        assert response.status_code == 206
        assert content(response) == part
        assert response["Content-Length"] == str(len(part))
        assert response["Content-Range"] == f"bytes {first}-{first + len(part) - 1}/{len(data)}"

    @pytest.mark.parametrize("asked", ["bytes=99999-", "bytes=99999-100000", "bytes=-0"])
    def test_has_nothing_behind_its_end(self, visitor, path, asked):
        response = visitor.get(path, HTTP_RANGE=asked)

        assert response.status_code == 416
        assert response.json()["code"] == "range_not_satisfiable"
        assert response["Content-Range"] == f"bytes */{len(picture())}"

    @pytest.mark.parametrize(
        "asked", ["bytes=0-1,3-4", "bytes=9-3", "bytes=-", "bytes=a-b", "lines=0-9", "bytes"]
    )
    def test_is_sent_whole_when_the_range_makes_no_sense(self, visitor, path, asked):
        response = visitor.get(path, HTTP_RANGE=asked)

        assert response.status_code == 200
        assert content(response) == picture()

    def test_is_sent_whole_when_it_changed_since(self, visitor, path, image):
        changed = visitor.get(path, HTTP_RANGE="bytes=0-9", HTTP_IF_RANGE='"other"')
        same = visitor.get(path, HTTP_RANGE="bytes=0-9", HTTP_IF_RANGE=f'"{image.sha256}"')

        assert (changed.status_code, same.status_code) == (200, 206)

    def test_is_described_without_being_sent(self, visitor, path):
        response = visitor.head(path, HTTP_RANGE="bytes=0-9")

        assert response.status_code == 200
        assert response["Content-Length"] == str(len(picture()))

    def test_that_is_gone_is_not_found(self, visitor, path, image, settings):
        storage.delete(image.storage_name)

        response = visitor.get(path)

        assert response.status_code == 404
        assert response["Content-Type"] == "application/problem+json"
        assert str(media_root()) not in response.content.decode()


class TestThumbnail:
    def test_is_webp_in_the_middle_size(self, visitor):
        image = ImageFactory(public=True, name="A red heart")

        response = visitor.get(f"/api/images/{image.pk}/thumbnail")

        assert content(response)[8:12] == b"WEBP"
        assert response["Content-Type"] == "image/webp"
        assert response["ETag"] == f'"{image.sha256}-300"'
        assert response["Content-Disposition"] == 'inline; filename="A red heart.webp"'
        assert response["Cache-Control"] == "public, max-age=3600"

    def test_is_not_sent_again_to_whoever_has_it(self, visitor):
        image = ImageFactory(public=True)

        response = visitor.get(
            f"/api/images/{image.pk}/thumbnail?size=150", HTTP_IF_NONE_MATCH=f'"{image.sha256}-150"'
        )

        assert response.status_code == 304

    @pytest.mark.parametrize("query", ["size=7", "size=-150", "size=0", "size=big", "width=150"])
    def test_exists_in_the_configured_sizes_only(self, visitor, query):
        image = ImageFactory(public=True)

        response = visitor.get(f"/api/images/{image.pk}/thumbnail?{query}")

        assert response.status_code == 400
        assert response.json()["errors"][0]["pointer"] == f"/{query.partition('=')[0]}"

    def test_of_a_file_that_is_gone_is_not_found(self, visitor):
        image = ImageFactory(public=True)
        storage.delete(image.storage_name)

        assert visitor.get(f"/api/images/{image.pk}/thumbnail").status_code == 404


class TestFileName:
    @pytest.mark.parametrize(
        ("name", "safe"),
        [
            ("a red heart", "a red heart.png"),
            ("a red heart.png", "a red heart.png"),
            ('a "red"\r\nX-Evil: 1', "a _red_X-Evil_ 1.png"),
            ("../../etc/passwd", "etc_passwd.png"),
            ("C:\\heart", "C_heart.png"),
            ("...", "image.png"),
            ("", "image.png"),
            ("ein rotes Herz ❤ für dich", "ein rotes Herz _ für dich.png"),
            ("x" * 300, "x" * 100 + ".png"),
        ],
    )
    def test_is_safe_on_every_system(self, name, safe):
        assert file_name(name, ".png") == safe
