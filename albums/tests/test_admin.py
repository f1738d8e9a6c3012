import pytest
from django.urls import reverse

from albums.admin import MOST_INLINE_IMAGES
from albums.models import Album, AlbumImage
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(client):
    client.force_login(UserFactory(is_staff=True, is_superuser=True, username="ada"))
    return client


class TestImageAdmin:
    url = reverse("admin:albums_image_changelist")

    def test_lists_pictures_newest_first(self, admin):
        image = ImageFactory(prompt="a red heart", owner=UserFactory(username="grace"))

        page = admin.get(self.url).content.decode()

        assert f"/api/images/{image.pk}/thumbnail" in page
        assert "a red heart" in page
        assert "grace" in page

    @pytest.mark.parametrize(("word", "count"), [("heart", 1), ("blue", 0)])
    def test_finds_words_of_the_prompt(self, admin, word, count):
        ImageFactory(prompt="a red heart")

        assert admin.get(self.url, {"q": word}).context["cl"].result_count == count

    def test_filters(self, admin):
        ImageFactory(public=True)
        ImageFactory()

        response = admin.get(self.url, {"visibility__exact": "public", "source_kind__exact": "upload"})

        assert response.context["cl"].result_count == 1

    def test_asks_as_many_questions_for_forty_images_as_for_one(self, admin, django_assert_num_queries):
        ImageFactory(owner=UserFactory())
        with django_assert_num_queries(4):  # session, user, count, images
            admin.get(self.url)

        for _ in range(39):
            ImageFactory(owner=UserFactory())
        with django_assert_num_queries(4):
            admin.get(self.url)

    def test_shows_an_image_and_lets_nobody_change_it(self, admin):
        image = ImageFactory(prompt="a red heart")
        url = reverse("admin:albums_image_change", args=[image.pk])

        assert "a red heart" in admin.get(url).content.decode()
        assert admin.post(url, {"prompt": "a blue star"}).status_code == 403
        assert admin.get(reverse("admin:albums_image_add")).status_code == 403
        assert admin.get(reverse("admin:albums_image_delete", args=[image.pk])).status_code == 403


class TestAlbumAdmin:
    url = reverse("admin:albums_album_changelist")

    def test_counts_images_without_asking_for_each_album(self, admin, django_assert_num_queries):
        images = ImageFactory.create_batch(3)
        AlbumFactory(images=images)
        with django_assert_num_queries(5):  # session, user, two counts, albums
            page = admin.get(self.url).content.decode()
        assert ">3</a>" in page

        for _ in range(20):
            AlbumFactory(images=images, owner=UserFactory())
        with django_assert_num_queries(5):
            admin.get(self.url)

    def test_sorts_by_the_number_of_images(self, admin):
        small, large = AlbumFactory(), AlbumFactory(images=[ImageFactory()])

        response = admin.get(self.url, {"o": "-4"})

        assert list(response.context["cl"].result_list) == [large, small]

    def test_creates_an_album_for_whoever_asks(self, admin):
        fields = {"name": "Cards", "description": "", "kind": "manual", "visibility": "public", "cover": ""}

        response = admin.post(reverse("admin:albums_album_add"), fields)

        assert response.status_code == 302
        assert Album.objects.get().owner.username == "ada"

    def test_changes_the_order(self, admin):
        first, second = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[first, second])
        fields = {
            "name": album.name,
            "kind": album.kind,
            "visibility": album.visibility,
            "memberships-TOTAL_FORMS": 2,
            "memberships-INITIAL_FORMS": 2,
        }
        for number, (image, position) in enumerate([(first, 5), (second, 1)]):
            fields |= {
                f"memberships-{number}-id": album.memberships.get(image=image).pk,
                f"memberships-{number}-album": album.pk,
                f"memberships-{number}-image": image.pk,
                f"memberships-{number}-position": position,
            }

        response = admin.post(reverse("admin:albums_album_change", args=[album.pk]), fields)

        assert response.status_code == 302
        assert list(album.memberships.in_order().values_list("image", flat=True)) == [second.pk, first.pk]

    def test_shows_a_large_album_without_its_images(self, admin):
        image = ImageFactory()
        album = AlbumFactory()
        images = ImageFactory.create_batch(MOST_INLINE_IMAGES, content=picture())
        AlbumImage.objects.bulk_create(
            AlbumImage(album=album, image=each, position=position)
            for position, each in enumerate([image, *images])
        )

        response = admin.get(reverse("admin:albums_album_change", args=[album.pk]))

        assert response.context["inline_admin_formsets"] == []
