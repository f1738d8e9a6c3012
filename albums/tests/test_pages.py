import re
import uuid
from datetime import timedelta

import pytest
from django.contrib.staticfiles import finders
from django.utils import timezone

from albums.models import AlbumImage
from albums.pages import PAGE_SIZE
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["a visitor", "somebody signed in"])
def outsider(request, client):
    if request.param == "somebody signed in":
        client.force_login(UserFactory())
    return client


@pytest.fixture
def staff(client):
    client.force_login(UserFactory(staff=True))
    return client


def prompts(response):
    assert response.status_code == 200
    return re.findall(r'<p class="caption"[^>]*>([^<]*)</p>', response.content.decode())


class TestContactSheet:
    def test_shows_the_newest_public_images(self, outsider):
        now = timezone.now()
        ImageFactory(public=True, prompt="a blue star", created_at=now - timedelta(hours=1))
        ImageFactory(public=True, prompt="a red heart", created_at=now)
        ImageFactory(prompt="a secret")

        assert prompts(outsider.get("/")) == ["a red heart", "a blue star"]

    def test_shows_staff_everything_and_marks_what_is_private(self, staff):
        ImageFactory(prompt="a secret")

        response = staff.get("/")

        assert prompts(response) == ["a secret"]
        assert "private" in response.content.decode()

    def test_names_a_picture_without_a_prompt(self, client):
        ImageFactory(public=True, name="holiday.png", prompt="")

        assert prompts(client.get("/")) == ["holiday.png"]

    def test_shows_tiny_pictures_as_they_are_and_others_as_thumbnails(self, client):
        tiny = ImageFactory(public=True)
        large = ImageFactory(public=True, width=1024, height=64)

        page = client.get("/").content.decode()

        assert f'<img class="tiny" src="/api/images/{tiny.pk}/file"' in page
        assert f'<img src="/api/images/{large.pk}/thumbnail"' in page

    def test_escapes_what_people_wrote(self, client):
        ImageFactory(public=True, prompt='"><script>alert(1)</script>')
        AlbumFactory(public=True, name="<b>bold</b>")

        page = client.get("/").content.decode()

        assert "<script" not in page
        assert "<b>" not in page

    def test_needs_nothing_that_a_strict_policy_forbids(self, client):
        ImageFactory(public=True)

        page = client.get("/").content.decode()

        assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:|https?://(?!www.w3.org)", page)
        for path in re.findall(r'"/static/([^"]+)"', page):
            assert finders.find(path), path

    def test_says_so_when_there_is_nothing(self, client):
        page = client.get("/").content.decode()

        assert "nothing to see here yet" in page
        assert "Sign in" in page

    def test_leads_to_older_images_until_the_last(self, client):
        now = timezone.now()
        content = picture()
        for number in range(PAGE_SIZE + 2):
            ImageFactory(public=True, prompt=f"no. {number}", created_at=now, content=content)

        first = client.get("/")
        older = re.search(r'rel="next" href="(\?[^"]+)"', first.content.decode()).group(1)
        second = client.get("/" + older)

        assert len(prompts(first)) == PAGE_SIZE
        assert len(set(prompts(first) + prompts(second))) == PAGE_SIZE + 2
        assert 'rel="next"' not in second.content.decode()

    @pytest.mark.parametrize("place", ["x", "2026-01-01~x", "~", "x~0198f000-0000-7000-8000-000000000000"])
    def test_knows_no_place_that_makes_no_sense(self, client, place):
        assert client.get("/", {"after": place}).status_code == 404

    def test_is_only_read(self, client):
        assert client.post("/").status_code == 405

    def test_asks_as_many_questions_for_sixty_images_as_for_one(self, client, django_assert_num_queries):
        ImageFactory(public=True)
        AlbumFactory(public=True)
        with django_assert_num_queries(2):  # images, albums
            client.get("/")

        ImageFactory.create_batch(60, public=True)
        AlbumFactory.create_batch(10, public=True)
        with django_assert_num_queries(2):
            client.get("/")


class TestAlbumContactSheet:
    def test_shows_the_images_of_an_album_in_its_order(self, outsider):
        images = [ImageFactory(public=True, prompt=prompt) for prompt in ("one", "two", "three")]
        album = AlbumFactory(public=True, name="Cards", description="All of them", images=images[::-1])
        AlbumImage.objects.create(album=album, image=ImageFactory(prompt="a secret"), position=9)
        ImageFactory(public=True, prompt="elsewhere")

        response = outsider.get(f"/albums/{album.pk}")

        assert prompts(response) == ["three", "two", "one"]
        assert "<h1>Cards</h1>" in response.content.decode()
        assert "All of them" in response.content.decode()

    def test_leads_to_the_rest(self, client):
        images = ImageFactory.create_batch(PAGE_SIZE + 1, public=True, prompt="")
        album = AlbumFactory(public=True, images=images)

        first = client.get(f"/albums/{album.pk}")
        more = re.search(r'rel="next" href="(\?[^"]+)"', first.content.decode()).group(1)

        assert prompts(client.get(f"/albums/{album.pk}{more}")) == [images[-1].name]

    def test_hides_a_private_album_like_one_that_does_not_exist(self, outsider):
        album = AlbumFactory(name="a secret")

        assert outsider.get(f"/albums/{album.pk}").status_code == 404
        assert outsider.get(f"/albums/{uuid.uuid4()}").status_code == 404
        assert "a secret" not in outsider.get("/").content.decode()

    def test_shows_staff_a_private_album(self, staff):
        assert staff.get(f"/albums/{AlbumFactory().pk}").status_code == 200
