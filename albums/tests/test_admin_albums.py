import json
import uuid

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone

from albums.admin.memberships import MOST_INLINE_IMAGES
from albums.models import Album, AlbumImage, Image
from albums.services import add_images_to_album
from albums.tests.clients import recorded_in_admin
from albums.tests.factories import AlbumFactory, ImageFactory, many_images
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

LIST = reverse("admin:albums_album_changelist")


@pytest.fixture
def admin(client):
    client.force_login(UserFactory(staff=True, username="ada"))
    return client


def url_of(album):
    return reverse("admin:albums_album_change", args=[album.pk])


def form(album, places=(), new=(), **values):
    """Return the fields of an album's form: its places as (image, position), new ones likewise."""
    fields = {
        "name": album.name,
        "description": album.description,
        "kind": album.kind,
        "visibility": album.visibility,
        "set_rows": json.dumps(album.set_rows),
        "loras": json.dumps(album.loras),
        "cover": album.cover_id or "",
        "memberships-TOTAL_FORMS": len(places) + len(new),
        "memberships-INITIAL_FORMS": len(places),
    }
    for number, (image, position) in enumerate(places):
        fields |= {
            f"memberships-{number}-id": album.memberships.get(image=image).pk,
            f"memberships-{number}-album": album.pk,
            f"memberships-{number}-position": position,
        }
    for number, (image, position) in enumerate(new, start=len(places)):
        fields |= {
            f"memberships-{number}-image": image.pk,
            f"memberships-{number}-position": position,
            f"memberships-{number}-album": album.pk,
        }
    return fields | values


def order(album):
    return list(album.memberships.in_order().values_list("image", flat=True))


def act(client, action, albums, **more):
    data = {"action": action, "_selected_action": [album.pk for album in albums]} | more
    return client.post(LIST, data, follow=True)


def said(response):
    return [str(message) for message in response.context["messages"]]


class TestList:
    def test_counts_images_without_asking_for_each_album(self, admin, django_assert_num_queries):
        images = ImageFactory.create_batch(3)
        AlbumFactory(images=images)
        with django_assert_num_queries(6):  # session, user, two of permissions, keys up to the bound, albums
            page = admin.get(LIST).content.decode()
        assert ">3</a>" in page
        assert f"/api/images/{images[0].pk}/thumbnail" in page

        for _ in range(20):
            AlbumFactory(images=images, owner=UserFactory())
        with django_assert_num_queries(6):
            admin.get(LIST)

    def test_sorts_by_the_number_of_images(self, admin):
        small, large = AlbumFactory(), AlbumFactory(images=[ImageFactory()])

        response = admin.get(LIST, {"o": "-6"})

        assert list(response.context["cl"].result_list) == [large, small]

    def test_makes_albums_public_and_private(self, admin):
        albums = AlbumFactory.create_batch(3)

        act(admin, "make_public", albums[:2])
        assert Album.objects.filter(visibility="public").count() == 2
        act(admin, "make_private", albums[:1])
        assert Album.objects.filter(visibility="public").count() == 1
        assert recorded_in_admin() == ["album.change"] * 3

    def test_merges_after_asking_into_which(self, admin):
        images = ImageFactory.create_batch(3)
        target, other = AlbumFactory(name="Cards", images=images[:1]), AlbumFactory(images=images[1:])

        response = act(admin, "merge", [target, other])
        assert "are deleted" in response.content.decode()
        assert Album.objects.count() == 2

        response = act(admin, "merge", [target, other], confirmed="yes", album=target.pk)

        assert said(response) == ["2 images came into “Cards”."]
        assert Album.objects.get() == target
        assert order(target) == [image.pk for image in images]
        assert "album.merge" in recorded_in_admin()

    def test_deletes_albums_and_no_images(self, admin):
        album = AlbumFactory(images=[ImageFactory()])
        AlbumFactory()

        page = act(admin, "delete_selected", Album.objects.all())
        assert str(album) in page.content.decode()
        act(admin, "delete_selected", Album.objects.all(), post="yes")

        assert not Album.objects.exists()
        assert Image.objects.exists()
        assert recorded_in_admin().count("album.delete") == 2

    def test_is_searched_for_the_fields_that_ask_for_an_album(self, admin):
        album = AlbumFactory(name="Cards")
        AlbumFactory(name="Herbarium")

        answer = admin.get(
            reverse("admin:autocomplete"),
            {"app_label": "albums", "model_name": "albumimage", "field_name": "album", "term": "card"},
        )

        assert answer.json()["results"] == [{"id": str(album.pk), "text": "Cards"}]


class TestPage:
    def test_creates_an_album_for_whoever_asks(self, admin):
        response = admin.post(reverse("admin:albums_album_add"), form(AlbumFactory.build(name="Cards")))

        assert response.status_code == 302
        assert Album.objects.get().owner.username == "ada"
        assert recorded_in_admin() == ["album.create"]

    def test_changes_only_what_was_changed(self, admin):
        album = AlbumFactory(name="before")
        data = form(album, name="after")
        Album.objects.filter(pk=album.pk).update(description="written by somebody else meanwhile")

        admin.post(url_of(album), data | {"description": "", "initial-description": ""})

        album.refresh_from_db()
        assert album.name == "after"

    def test_changes_the_order(self, admin):
        images = ImageFactory.create_batch(3)
        album = AlbumFactory(images=images)
        places = list(zip(images, (5, 1, 3), strict=True))

        response = admin.post(url_of(album), form(album, places))

        assert response.status_code == 302
        assert order(album) == [images[1].pk, images[2].pk, images[0].pk]
        album.refresh_from_db()
        assert album.preview_ids[0] == str(images[1].pk)
        assert recorded_in_admin() == ["album.place_images"]

    @pytest.mark.parametrize("position", [-1, 2**31, 2**63 - 1])
    def test_takes_no_position_that_no_database_holds(self, admin, position):
        image = ImageFactory()
        album = AlbumFactory(images=[image])

        assert admin.post(url_of(album), form(album, [(image, position)])).status_code == 200
        assert album.memberships.get().position == 0

    def test_adds_no_image_that_is_in_the_trash(self, admin):
        image = ImageFactory(deleted_at=timezone.now())
        album = AlbumFactory()

        assert admin.post(url_of(album), form(album, new=[(image, 0)])).status_code == 200
        assert not album.memberships.exists()

    def test_adds_and_removes_images(self, admin):
        images = ImageFactory.create_batch(3)
        album = AlbumFactory(images=images[:2])
        data = form(album, [(images[0], 0), (images[1], 1)], [(images[2], 0)])

        admin.post(url_of(album), data | {"memberships-1-DELETE": "on"})

        assert order(album) == sorted([images[0].pk, images[2].pk])
        album.refresh_from_db()
        assert album.total_images == 2
        assert recorded_in_admin() == ["album.remove_images", "album.add_images", "album.place_images"]

    def test_adds_no_image_twice(self, admin):
        image = ImageFactory()
        album = AlbumFactory(images=[image])

        response = admin.post(url_of(album), form(album, [(image, 0)], [(image, 1)]))

        assert response.status_code == 200
        assert album.memberships.count() == 1

    def test_a_place_keeps_its_image_whatever_is_sent(self, admin):
        image, other = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[image])

        admin.post(url_of(album), form(album, [(image, 3)]) | {"memberships-0-image": other.pk})

        assert order(album) == [image.pk]

    def test_asks_as_many_questions_for_forty_images_as_for_one(self, admin, django_assert_max_num_queries):
        images = many_images(40)
        small, large = AlbumFactory(images=images[:1]), AlbumFactory(images=images)

        admin.get(url_of(small))
        with django_assert_max_num_queries(8) as few:
            admin.get(url_of(small))
        with django_assert_max_num_queries(8) as many:
            admin.get(url_of(large))
        assert len(many) == len(few)

        with django_assert_max_num_queries(45) as few:
            admin.post(url_of(small), form(small, [(images[0], 7)]))
        turned = form(large, [(image, 40 - number) for number, image in enumerate(images)])
        with django_assert_max_num_queries(45) as many:
            admin.post(url_of(large), turned)
        assert len(many) <= len(few)

    def test_shows_a_large_album_without_its_images(self, admin):
        album = AlbumFactory()
        add_images_to_album(album, many_images(MOST_INLINE_IMAGES + 1))

        response = admin.get(url_of(album))

        assert response.context["inline_admin_formsets"] == []
        assert f"{reverse('admin:albums_image_changelist')}?album={album.pk}" in response.content.decode()

    def test_lets_only_its_own_images_stand_for_it(self, admin):
        inside, outside = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[inside])

        response = admin.post(url_of(album), form(album, [(inside, 0)], cover=outside.pk))
        assert "not in this album" in response.content.decode()

        admin.post(url_of(album), form(album, [(inside, 0)], cover=inside.pk))
        album.refresh_from_db()
        assert album.cover == inside

    def test_looks_for_a_cover_among_its_own_images(self, admin):
        album = AlbumFactory(images=[ImageFactory()])

        assert f"/admin/albums/image/?album={album.pk}" in admin.get(url_of(album)).content.decode()

    def test_somebody_else_deleted_it_meanwhile(self, admin, monkeypatch):
        album = AlbumFactory()
        from albums import services

        def gone(*args, **kwargs):
            raise services.AlbumGone("The album has been deleted.")

        monkeypatch.setattr(services, "update_album", gone)

        response = admin.post(url_of(album), form(album, name="after"), follow=True)

        assert said(response) == ["Nothing was saved. The album has been deleted."]


class TestSetTemplate:
    def template(self, **values):
        return AlbumFactory(
            is_set_template=True,
            set_rows=[{"name": "fool"}, {"name": "sun"}],
            base_prompt="a card",
            prompt_template="of the {name}",
            example_theme="woodcut",
            **values,
        )

    def set_form(self, album, **values):
        texts = {
            name: getattr(album, name)
            for name in ("base_prompt", "prompt_template", "style_suffix", "example_theme", "negative_prompt")
        }
        return form(album) | texts | {"is_set_template": "on"} | values

    def test_shows_the_prompts(self, admin):
        page = admin.get(url_of(self.template())).content.decode()

        assert "a card. Art style: woodcut. of the fool" in page
        assert "a card. Art style: woodcut. of the sun" in page

    def test_shows_why_there_are_none(self, admin):
        album = self.template()
        Album.objects.filter(pk=album.pk).update(prompt_template="{suit}")

        assert "The set template is not valid" in admin.get(url_of(album)).content.decode()

    def test_changes_rows_and_texts(self, admin):
        album = self.template()

        response = admin.post(
            url_of(album), self.set_form(album, set_rows='[{"name": "moon"}]', style_suffix="gold leaf")
        )

        assert response.status_code == 302
        album.refresh_from_db()
        assert (list(map(dict, album.set_rows)), album.style_suffix) == ([{"name": "moon"}], "gold leaf")

    def test_points_to_the_row_and_the_column(self, admin):
        album = self.template()

        response = admin.post(url_of(album), self.set_form(album, set_rows='[{"name": "moon"}, {"name": 3}]'))

        assert "Row 2, name: " in response.content.decode()
        album.refresh_from_db()
        assert len(album.set_rows) == 2

    def test_takes_rows_from_a_file(self, admin):
        album = self.template()
        file = SimpleUploadedFile("rows.csv", b"name,note\nmoon,\nstar,bright\n", "text/csv")

        response = admin.post(url_of(album), self.set_form(album, rows_file=file))

        assert response.status_code == 302
        album.refresh_from_db()
        assert [row["name"] for row in album.set_rows] == ["moon", "star"]

    def test_refuses_a_file_that_is_no_table(self, admin):
        album = self.template()
        file = SimpleUploadedFile("rows.csv", b"name,note\nmoon\n", "text/csv")

        response = admin.post(url_of(album), self.set_form(album, rows_file=file))

        assert "The header names 2 columns" in response.content.decode()
        album.refresh_from_db()
        assert len(album.set_rows) == 2


def test_nobody_but_staff_comes_in(client):
    client.force_login(UserFactory())
    album = AlbumFactory()

    for address in (LIST, url_of(album), reverse("admin:albums_image_change", args=[uuid.uuid4()])):
        assert client.get(address).status_code == 302
    assert not AlbumImage.objects.exists()
