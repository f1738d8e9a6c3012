import re
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.utils import timezone

from albums.models import Album, AlbumImage, Image, ImageQuerySet, Label
from albums.pages.listing import PAGE_SIZE
from albums.pages.lists import ALBUMS_IN_FRONT, ALBUMS_ON_PAGE
from albums.pages.tiles import RATIO_STEP, shape_of, srcset_of
from albums.services import add_images_to_album, index_words
from albums.tests.factories import AlbumFactory, ImageFactory, many_images, picture
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

FLAGGED = Image.Nsfw.FLAGGED


@pytest.fixture(params=["a visitor", "somebody signed in"])
def outsider(request, client):
    if request.param == "somebody signed in":
        client.force_login(UserFactory())
    return client


@pytest.fixture
def staff(client):
    client.force_login(UserFactory(staff=True))
    return client


def captions(response):
    assert response.status_code == 200
    return re.findall(r'<span class="caption"[^>]*>([^<]*)</span>', response.content.decode())


def link(response, rel):
    found = re.search(rf'rel="{rel}" href="([^"]+)"', response.content.decode())
    return found and found.group(1).replace("&amp;", "&")


def shared(response):
    return re.search(r'property="og:image" content="([^"]+)"', response.content.decode()).group(1)


class TestFront:
    def test_shows_the_newest_public_images(self, outsider):
        now = timezone.now()
        ImageFactory(public=True, prompt="a blue star", created_at=now - timedelta(hours=1))
        ImageFactory(public=True, prompt="a red heart", created_at=now)
        ImageFactory(prompt="a secret")
        ImageFactory(public=True, prompt="thrown away", deleted_at=now)

        assert captions(outsider.get("/")) == ["a red heart", "a blue star"]

    def test_shows_staff_everything_and_marks_what_is_private(self, staff):
        ImageFactory(prompt="a secret")

        response = staff.get("/")

        assert captions(response) == ["a secret"]
        assert "private" in response.content.decode()

    def test_hides_what_is_flagged_and_shows_what_nobody_has_looked_at(self, outsider):
        ImageFactory(public=True, prompt="unknown")
        ImageFactory(public=True, prompt="flagged", nsfw=FLAGGED)

        assert captions(outsider.get("/")) == ["unknown"]

    def test_blurs_what_is_flagged_for_staff(self, staff):
        ImageFactory(prompt="flagged", nsfw=FLAGGED)

        assert re.search(r'<li class="tile r0 flagged"', staff.get("/").content.decode())

    def test_names_a_picture_without_a_prompt(self, client):
        ImageFactory(public=True, name="holiday.png", prompt="")

        assert captions(client.get("/")) == ["holiday.png"]

    def test_shows_tiny_pictures_as_they_are_and_others_as_thumbnails(self, client):
        tiny = ImageFactory(public=True)
        large = ImageFactory(public=True, width=1024, height=64)

        page = client.get("/").content.decode()

        assert f'<img class="tiny" src="/api/images/{tiny.pk}/file"' in page
        assert f'<img src="/api/images/{large.pk}/thumbnail" srcset="' in page

    def test_escapes_what_people_wrote(self, client):
        ImageFactory(public=True, prompt='"><script>alert(1)</script>')
        AlbumFactory(public=True, name="<b>bold</b>")

        page = client.get("/").content.decode()

        assert "<script>" not in page
        assert "<b>" not in page

    def test_says_so_when_there_is_nothing(self, client):
        page = client.get("/").content.decode()

        assert "nothing to see here yet" in page
        assert "Sign in" in page

    def test_leads_to_older_images_until_the_last(self, client):
        Image.objects.filter(
            pk__in=[image.pk for image in many_images(PAGE_SIZE + 2, public=True, prompt="")]
        ).update(created_at=timezone.now())

        first = client.get("/")
        second = client.get("/" + link(first, "next"))

        assert len(captions(first)) == PAGE_SIZE
        assert len(set(captions(first) + captions(second))) == PAGE_SIZE + 2
        assert link(second, "next") is None

    def test_the_api_continues_where_the_page_ends(self, client):
        many_images(PAGE_SIZE + 2, public=True, prompt="")

        first = client.get("/")
        address = re.search(r'data-next="([^"]+)"', first.content.decode()).group(1).replace("&amp;", "&")
        rest = client.get(address).json()["results"]

        assert len(rest) == 2
        assert not {image["name"] for image in rest} & set(captions(first))

    @pytest.mark.parametrize("cursor", ["x", "2026-01-01~x", "~", "x~0198f000-0000-7000-8000-000000000000"])
    def test_knows_no_place_that_makes_no_sense(self, client, cursor):
        assert client.get("/", {"cursor": cursor}).status_code == 404

    def test_is_only_read(self, client):
        assert client.post("/").status_code == 405

    def test_shows_albums_with_what_stands_for_them(self, client):
        images = ImageFactory.create_batch(2, public=True)
        hidden = ImageFactory()
        album = AlbumFactory(public=True, cover=hidden, images=[hidden, *images], is_set_template=True)
        AlbumFactory(name="a secret")

        page = client.get("/").content.decode()

        assert "a secret" not in page
        assert "2 pictures" in page
        assert "set template" in page
        assert f'href="/albums/{album.pk}"' in page
        assert str(hidden.pk) not in page
        assert 'class="cover covers-2"' in page

    def test_no_flagged_picture_stands_for_an_album_even_before_staff(self, staff):
        image = ImageFactory(nsfw=FLAGGED)
        AlbumFactory(cover=image)

        assert 'class="cover covers-0"' in staff.get("/").content.decode()

    def test_leads_to_all_albums(self, client):
        AlbumFactory.create_batch(ALBUMS_IN_FRONT, public=True)
        assert "All albums" not in client.get("/").content.decode()

        AlbumFactory(public=True)
        assert "All albums" in client.get("/").content.decode()

    def test_asks_as_many_questions_for_sixty_images_as_for_one(self, client, django_assert_num_queries):
        AlbumFactory(public=True, images=[ImageFactory(public=True)])
        with django_assert_num_queries(3):  # images, albums, what stands for these
            client.get("/")

        images = many_images(60, public=True)
        for number in range(10):
            AlbumFactory(public=True, images=images[number : number + 5])
        with django_assert_num_queries(3):
            client.get("/")

    def test_searches(self, client):
        found, other = (
            ImageFactory(public=True, prompt="a red heart"),
            ImageFactory(public=True, prompt="a star"),
        )
        index_words([found.pk, other.pk])
        AlbumFactory(public=True, name="Cards")

        response = client.get("/", {"q": "heart"})

        assert captions(response) == ["a red heart"]
        assert "Cards" not in response.content.decode()
        assert captions(client.get("/", {"q": " ".join("x" * 30)})) == []


class TestAlbum:
    def test_shows_the_images_of_an_album_in_its_order(self, outsider):
        images = [ImageFactory(public=True, prompt=prompt) for prompt in ("one", "two", "three")]
        album = AlbumFactory(public=True, name="Cards", description="All of them", images=images[::-1])
        AlbumImage.objects.create(album=album, image=ImageFactory(prompt="a secret"), position=9)
        ImageFactory(public=True, prompt="elsewhere")

        response = outsider.get(f"/albums/{album.pk}")

        assert captions(response) == ["three", "two", "one"]
        assert "<h1>Cards</h1>" in response.content.decode()
        assert "All of them" in response.content.decode()
        assert f'href="/images/{images[0].pk}?album={album.pk}"' in response.content.decode()

    def test_leads_to_the_rest(self, client):
        images = many_images(PAGE_SIZE + 1, public=True, prompt="")
        album = AlbumFactory(public=True, images=images)

        first = client.get(f"/albums/{album.pk}")

        assert captions(client.get(f"/albums/{album.pk}{link(first, 'next')}")) == [images[-1].name]

    def test_hides_a_private_album_like_one_that_does_not_exist(self, outsider):
        album = AlbumFactory(name="a secret")
        unknown = uuid.uuid4()

        hidden, missing = outsider.get(f"/albums/{album.pk}"), outsider.get(f"/albums/{unknown}")

        assert hidden.status_code == missing.status_code == 404
        assert hidden.content == missing.content.replace(str(unknown).encode(), str(album.pk).encode())
        assert "a secret" not in outsider.get("/").content.decode()

    def test_shows_staff_a_private_album_and_the_way_to_edit_it(self, staff):
        album = AlbumFactory()

        page = staff.get(f"/albums/{album.pk}").content.decode()

        assert f"/admin/albums/album/{album.pk}/change/" in page

    def test_asks_as_many_questions_for_sixty_images_as_for_one(self, client, django_assert_num_queries):
        images = many_images(60, public=True)
        album = AlbumFactory(public=True, images=images[:1])
        with django_assert_num_queries(3):  # album, may it be seen, images
            client.get(f"/albums/{album.pk}")

        add_images_to_album(album, images)
        with django_assert_num_queries(3):
            client.get(f"/albums/{album.pk}")

    def test_is_shared_with_a_picture_that_everybody_may_see(self, staff):
        public, private, flagged = (
            ImageFactory(public=True),
            ImageFactory(),
            ImageFactory(public=True, nsfw=FLAGGED),
        )
        for cover, expected in ((public, str(public.pk)), (private, "share.png"), (flagged, "share.png")):
            album = AlbumFactory(public=True, cover=cover, images=[public])
            assert expected in shared(staff.get(f"/albums/{album.pk}"))

        album = AlbumFactory(cover=public)
        assert "share.png" in shared(staff.get(f"/albums/{album.pk}"))

    def test_searches_in_it(self, client):
        inside, outside = ImageFactory.create_batch(2, public=True, prompt="a red heart")
        other = ImageFactory(public=True, prompt="a star")
        index_words([inside.pk, outside.pk, other.pk])
        album = AlbumFactory(public=True, images=[other, inside])

        assert captions(client.get(f"/albums/{album.pk}", {"q": "heart"})) == ["a red heart"]


class TestAlbums:
    def test_lists_all_page_by_page(self, outsider):
        now = timezone.now()
        Album.objects.bulk_create(
            Album(name=f"no. {number}", visibility="public", created_at=now)
            for number in range(ALBUMS_ON_PAGE + 1)
        )
        AlbumFactory(name="a secret")

        first = outsider.get("/albums")
        second = outsider.get("/albums" + link(first, "next"))

        names = re.findall(r'<span class="name">([^<]+)<', (first.content + second.content).decode())
        assert len(names) == len(set(names)) == ALBUMS_ON_PAGE + 1
        assert "a secret" not in names
        assert link(second, "next") is None

    @pytest.mark.parametrize("place", ["x", "2026-01-01~x", "~", "x~0198f000-0000-7000-8000-000000000000"])
    def test_knows_no_place_that_makes_no_sense(self, client, place):
        assert client.get("/albums", {"after": place}).status_code == 404


class TestPicture:
    def test_shows_how_it_was_made(self, outsider):
        image = ImageFactory(
            public=True,
            prompt="a red heart",
            negative_prompt="blur",
            seed=1234567,
            steps=28,
            guidance_scale=6.5,
            scheduler="euler",
            base_model="starter",
            loras=[{"id": "7", "name": "dusk", "weight": 0.8, "path": "/srv/secret.safetensors"}],
            original_name="IMG_0001.png",
            owner=UserFactory(username="grace"),
        )

        page = outsider.get(f"/images/{image.pk}").content.decode()

        for shown in ("a red heart", "blur", "1234567", "28", "6.5", "euler", "starter", "dusk × 0.8"):
            assert shown in page
        for hidden in ("/srv/", "IMG_0001", "grace", "Edit"):
            assert hidden not in page

    def test_shows_what_is_said_and_who_says_so(self, client):
        image = ImageFactory(public=True)
        for number, (kind, text, origin, model, confidence) in enumerate(
            [
                ("caption", "A heart.", "human", "", None),
                ("tag", "heart", "model", "tagger 3", 0.93),
                ("tag", "red", "import", "", None),
            ]
        ):
            Label.objects.create(
                image=image,
                kind=kind,
                text=text,
                identity=str(number),
                origin=origin,
                model=model,
                confidence=confidence,
            )

        page = client.get(f"/images/{image.pk}").content.decode()

        assert 'A heart. <span class="origin">human</span>' in page
        assert 'heart <span class="origin">tagger 3, 93%</span>' in page
        assert 'red <span class="origin">import</span>' in page

    def test_names_the_albums_that_the_caller_may_see(self, client):
        image = ImageFactory(public=True)
        AlbumFactory(public=True, name="Cards", images=[image])
        AlbumFactory(name="a secret", images=[image])

        page = client.get(f"/images/{image.pk}").content.decode()

        assert "Cards" in page
        assert "a secret" not in page

    def test_steps_through_the_album_past_what_is_not_shown(self, client):
        images = [ImageFactory(public=True, content=picture()) for _ in range(3)]
        hidden = [ImageFactory(), ImageFactory(public=True, nsfw=FLAGGED)]
        album = AlbumFactory(public=True, images=[images[2], hidden[0], images[0], hidden[1], images[1]])
        AlbumImage.objects.filter(album=album, image__in=[*hidden, images[0]]).update(position=1)

        middle = client.get(f"/images/{images[0].pk}", {"album": album.pk})

        assert link(middle, "prev") == f"/images/{images[2].pk}?album={album.pk}"
        assert link(middle, "next") == f"/images/{images[1].pk}?album={album.pk}"
        assert link(client.get(link(middle, "prev")), "prev") is None
        assert link(client.get(link(middle, "next")), "next") is None

    def test_is_shown_when_it_is_taken_out_of_the_album_in_the_meantime(self, client, monkeypatch):
        images = [ImageFactory(public=True) for _ in range(2)]
        album = AlbumFactory(public=True, images=images)

        def take_out(images, user):
            AlbumImage.objects.all().delete()
            return shown_to(images, user)

        shown_to = ImageQuerySet.shown_to
        monkeypatch.setattr(ImageQuerySet, "shown_to", take_out)

        page = client.get(f"/images/{images[0].pk}", {"album": album.pk})

        assert page.status_code == 200
        assert link(page, "next") is None

    def test_steps_through_time_elsewhere(self, client):
        now = timezone.now()
        newer, image, older = (
            ImageFactory(public=True, created_at=now - timedelta(hours=hours)) for hours in range(3)
        )
        private = AlbumFactory(images=[image, newer])

        for query in ({}, {"album": private.pk}, {"album": uuid.uuid4()}, {"album": "x"}):
            page = client.get(f"/images/{image.pk}", query)
            assert link(page, "prev") == f"/images/{newer.pk}"
            assert link(page, "next") == f"/images/{older.pk}"

    def test_hides_what_is_private_or_in_the_trash_like_what_does_not_exist(self, outsider):
        now = timezone.now()
        for pk in (ImageFactory().pk, ImageFactory(public=True, deleted_at=now).pk, uuid.uuid4()):
            response = outsider.get(f"/images/{pk}")
            assert response.status_code == 404
            assert "nothing that you may see" in response.content.decode()

    def test_puts_a_veil_before_what_is_flagged(self, client):
        image = ImageFactory(public=True, nsfw=FLAGGED)

        assert '<details class="veil">' in client.get(f"/images/{image.pk}").content.decode()

    def test_is_shared_neutrally_unless_everybody_may_see_it(self, staff):
        public, private, flagged = (
            ImageFactory(public=True),
            ImageFactory(),
            ImageFactory(public=True, nsfw=FLAGGED),
        )

        assert shared(staff.get(f"/images/{public.pk}")).startswith("http://testserver/api/images/")
        assert shared(staff.get(f"/images/{private.pk}")) == "http://testserver/static/albums/share.png"
        assert shared(staff.get(f"/images/{flagged.pk}")) == "http://testserver/static/albums/share.png"

    def test_asks_as_many_questions_for_many_albums_and_labels_as_for_one(
        self, client, django_assert_num_queries
    ):
        image = ImageFactory(public=True)
        album = AlbumFactory(public=True, images=[image])
        with django_assert_num_queries(7):  # image, albums, this one, its place, two neighbours, labels
            client.get(f"/images/{image.pk}", {"album": album.pk})

        for number in range(20):
            AlbumFactory(public=True, images=[image])
            Label.objects.create(image=image, kind="tag", text=f"tag {number}", identity=str(number))
        with django_assert_num_queries(7):
            client.get(f"/images/{image.pk}", {"album": album.pk})


class TestEveryPage:
    def test_needs_nothing_that_a_strict_policy_forbids(self, client):
        image = ImageFactory(public=True)
        album = AlbumFactory(public=True, images=[image])

        for address in ("/", "/albums", f"/albums/{album.pk}", f"/images/{image.pk}", "/images/unknown"):
            page = client.get(address).content.decode()
            page = re.sub(r'<meta property="og:image"[^>]+>', "", page)  # an address to share is absolute

            assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:|https?://", page)
            for path in re.findall(r'"/static/([^"]+)"', page):
                assert finders.find(path), path


class TestTile:
    @pytest.mark.parametrize(
        ("width", "height", "shape"), [(512, 512, 0), (1024, 512, 12), (1, 5000, -16), (5000, 1, 20)]
    )
    def test_has_the_shape_that_is_nearest(self, width, height, shape):
        assert shape_of(width, height) == shape

    def test_every_shape_has_a_class(self):
        css = Path(finders.find("albums/page.css")).read_text()
        classes = dict(re.findall(r"\.r(-?\d+) { --shape: ([\d.]+); }", css))

        assert {int(number): float(value) for number, value in classes.items()} == {
            number: pytest.approx(RATIO_STEP**number, abs=1e-4) for number in range(-16, 21)
        }

    def test_no_thumbnail_is_wider_than_the_picture(self):
        image = ImageFactory.build(pk=uuid.uuid4(), width=400, height=100, stored=None, storage_name="x", sha256="y", size_bytes=1)  # fmt: skip

        assert re.findall(r"size=(\d+) (\d+)w", srcset_of(image, [150, 300, 600, 1200])) == [
            ("150", "150"),
            ("300", "300"),
            ("600", "400"),
        ]
