import uuid

import pytest
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone

from albums.admin.images import MOST_AT_ONCE, ImageAdmin
from albums.admin.labels import MOST_LABELS
from albums.models import Image, Label
from albums.services import index_words, put_label
from albums.tests.clients import recorded_in_admin
from albums.tests.factories import AlbumFactory, ImageFactory, many_images
from imagehub import admin_lists
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

LIST = reverse("admin:albums_image_changelist")


@pytest.fixture
def admin(client):
    client.force_login(UserFactory(staff=True, username="ada"))
    return client


def shown(response):
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def act(client, action, images, *, query="", **more):
    data = {"action": action, "_selected_action": [image.pk for image in images]} | more
    return client.post(LIST + query, data, follow=True)


def said(response):
    return [str(message) for message in response.context["messages"]]


def labels_form(labels=(), new=()):
    """Return the fields of the inline: labels as (label, text or None to delete), new ones as (kind, text)."""
    fields = {"labels-TOTAL_FORMS": len(labels) + len(new), "labels-INITIAL_FORMS": len(labels)}
    for number, (label, text) in enumerate(labels):
        fields |= {
            f"labels-{number}-id": label.pk,
            f"labels-{number}-image": label.image_id,
            f"labels-{number}-text": label.text if text is None else text,
        }
        if text is None:
            fields[f"labels-{number}-DELETE"] = "on"
    for number, (kind, text) in enumerate(new, start=len(labels)):
        fields |= {f"labels-{number}-kind": kind, f"labels-{number}-text": text}
    return fields


def change(client, image, labels=None, **values):
    fields = {
        "name": image.name,
        "prompt": image.prompt,
        "negative_prompt": image.negative_prompt,
        "visibility": image.visibility,
        "nsfw": image.nsfw,
        "rating": image.rating,
    }
    url = reverse("admin:albums_image_change", args=[image.pk])
    return client.post(url, fields | (labels or labels_form()) | values, follow=True)


class TestList:
    def test_shows_pictures_newest_first(self, admin):
        image = ImageFactory(prompt="a red heart", owner=UserFactory(username="grace"))

        page = admin.get(LIST).content.decode()

        assert f"/api/images/{image.pk}/thumbnail?size=150" in page
        assert "a red heart" in page
        assert "grace" in page

    @pytest.mark.parametrize(("word", "count"), [("heart", 1), ("smile", 1), ("blue", 0)])
    def test_finds_words_of_prompts_and_labels(self, admin, word, count):
        image = ImageFactory(prompt="a red heart")
        index_words([image.pk])
        put_label(image, "tag", "smile", "human")

        assert len(shown(admin.get(LIST, {"q": word}))) == count

    def test_refuses_a_search_that_is_too_long(self, admin):
        response = admin.get(LIST, {"q": "word " * 200})

        assert shown(response) == []
        assert said(response)

    @pytest.mark.parametrize(
        ("filters", "values"),
        [
            ({"visibility__exact": "public"}, {"visibility": "public"}),
            ({"nsfw__exact": "flagged"}, {"nsfw": "flagged"}),
            ({"starred__exact": "1"}, {"starred": True}),
            ({"rating": "4"}, {"rating": 4}),
            ({"source_kind__exact": "scrape"}, {"source_kind": "scrape"}),
            ({"format__exact": "webp"}, {"format": "webp"}),
        ],
    )
    def test_filters(self, admin, filters, values):
        ImageFactory()
        wanted = ImageFactory(**values)

        assert shown(admin.get(LIST, filters)) == [wanted]

    def test_filters_by_album(self, admin):
        inside, _ = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[inside], name="Cards")

        response = admin.get(LIST, {"album": album.pk})

        assert shown(response) == [inside]
        assert "Cards" in response.content.decode()
        assert len(shown(admin.get(LIST, {"album": "nonsense"}))) == 2

    def test_keeps_the_trash_apart(self, admin):
        live, trashed = ImageFactory(), ImageFactory(deleted_at=timezone.now())

        here, there = admin.get(LIST), admin.get(LIST, {"trash": "yes"})

        assert (shown(here), shown(there)) == ([live], [trashed])
        names = [dict(response.context["action_form"].fields["action"].choices) for response in (here, there)]
        assert "trash" in names[0]
        assert "purge" not in names[0]
        assert set(names[1]) == {"", "restore", "purge"}

    def test_asks_as_many_questions_for_fifty_images_as_for_one(self, admin, django_assert_num_queries):
        ImageFactory(owner=UserFactory())
        with django_assert_num_queries(6):  # session, user, two of permissions, keys up to the bound, images
            admin.get(LIST)

        many_images(49, owner=UserFactory())
        with django_assert_num_queries(6):
            assert len(shown(admin.get(LIST))) == 50

    def test_stops_counting_at_a_bound(self, admin, monkeypatch):
        monkeypatch.setattr(admin_lists, "MOST_COUNTED", 60)

        def count(queryset):
            raise AssertionError("This would read the whole table.")

        monkeypatch.setattr(QuerySet, "count", count)
        many_images(62)

        page = admin.get(LIST).content.decode()

        assert "more than 60 images" in page
        assert len(shown(admin.get(LIST, {"p": "2"}))) == 10  # the last page that can be turned to


class TestActions:
    @pytest.mark.parametrize(
        ("action", "field", "value"),
        [
            ("make_public", "visibility", "public"),
            ("make_private", "visibility", "private"),
            ("mark_flagged", "nsfw", "flagged"),
            ("mark_safe", "nsfw", "safe"),
            ("star", "starred", True),
            ("unstar", "starred", False),
        ],
    )
    def test_changes_what_is_selected_and_nothing_else(self, admin, action, field, value):
        before = {"make_private": {"visibility": "public"}, "unstar": {"starred": True}}.get(action, {})
        images = ImageFactory.create_batch(3, **before)
        album = AlbumFactory(images=images)

        response = act(admin, action, images[:2])

        assert said(response)[0].startswith("2 images are")
        values = [getattr(Image.objects.get(pk=image.pk), field) for image in images]
        assert values == [value, value, getattr(images[2], field)]
        assert "image.change" in recorded_in_admin()
        album.refresh_from_db()
        public = Image.objects.filter(visibility="public").exclude(nsfw="flagged").count()
        assert album.public_images == public  # the services were asked, and not the table

    def test_throws_away_and_brings_back(self, admin):
        image = ImageFactory()

        act(admin, "trash", [image])
        assert Image.objects.get().deleted_at
        act(admin, "restore", [image], query="?trash=yes")
        assert not Image.objects.get().deleted_at

        assert recorded_in_admin() == ["image.trash", "image.restore"]

    def test_deletes_for_good_after_asking(self, admin):
        image = ImageFactory(deleted_at=timezone.now(), name="picture no. 1")

        response = act(admin, "purge", [image], query="?trash=yes")

        assert "Nothing brings them back" in response.content.decode()
        assert "picture no. 1" in response.content.decode()
        assert Image.objects.exists()

        act(admin, "purge", [image], query="?trash=yes", confirmed="yes")

        assert not Image.objects.exists()
        assert recorded_in_admin()

    def test_deletes_nothing_that_is_not_in_the_trash(self, admin):
        image = ImageFactory()

        for query in ("", "?trash=yes"):
            act(admin, "purge", [image], query=query, confirmed="yes")

        assert Image.objects.filter(pk=image.pk, deleted_at=None).exists()

    def test_puts_images_into_an_album_the_oldest_first(self, admin):
        images = ImageFactory.create_batch(3)
        album = AlbumFactory(name="Cards", images=images[:1])

        response = act(admin, "put_into_album", images)
        assert "Put images into an album" in response.content.decode()
        assert album.memberships.count() == 1

        response = act(admin, "put_into_album", images, confirmed="yes", album=album.pk)

        assert said(response) == ["2 of 3 images are new in “Cards”."]
        order = album.memberships.in_order().values_list("image", flat=True)
        assert list(order) == [image.pk for image in images]
        assert recorded_in_admin() == ["album.add_images"]

    def test_moves_images_from_one_album_to_another(self, admin):
        image = ImageFactory()
        here, there = AlbumFactory(images=[image]), AlbumFactory()

        act(admin, "put_into_album", [image], confirmed="yes", album=there.pk, out_of=here.pk)

        assert not here.memberships.exists()
        assert there.memberships.count() == 1

    def test_asks_again_for_an_album_that_does_not_exist(self, admin):
        response = act(admin, "put_into_album", [ImageFactory()], confirmed="yes", album=uuid.uuid4())

        assert "Select a valid choice" in response.content.decode()

    def test_refuses_too_many_at_once(self, admin, monkeypatch):
        monkeypatch.setattr("albums.admin.images.MOST_AT_ONCE", 2)
        images = ImageFactory.create_batch(3)
        assert ImageAdmin.list_per_page <= MOST_AT_ONCE

        response = act(admin, "make_public", images)

        assert said(response) == ["Nothing was changed. One action changes at most 2 images."]
        assert not Image.objects.filter(visibility="public").exists()


class TestPage:
    def test_changes_what_people_may_change(self, admin):
        image = ImageFactory(prompt="a red heart")
        album = AlbumFactory(images=[image])

        response = change(admin, image, prompt="a blue star", visibility="public", rating=4, starred="on")

        assert "was changed successfully" in said(response)[0]
        image.refresh_from_db()
        assert (image.prompt, image.visibility, image.rating, image.starred) == (
            "a blue star",
            "public",
            4,
            True,
        )
        assert image.text.document
        assert shown(admin.get(LIST, {"q": "star"})) == [image]
        album.refresh_from_db()
        assert album.public_images == 1
        assert recorded_in_admin() == ["image.change"]

    def test_changes_nothing_else(self, admin):
        image = ImageFactory(seed=1)

        change(admin, image, seed=2, storage_name="elsewhere", sha256="0", name="other")

        image.refresh_from_db()
        assert (image.seed, image.name) == (1, "other")
        assert image.storage_name != "elsewhere"

    def test_says_what_is_out_of_range(self, admin):
        response = change(admin, ImageFactory(), rating=6)

        assert "less than or equal to 5" in response.content.decode()

    def test_what_is_in_the_trash_is_only_looked_at(self, admin):
        image = ImageFactory(deleted_at=timezone.now())

        assert admin.get(reverse("admin:albums_image_change", args=[image.pk])).status_code == 200
        assert change(admin, image, name="other").status_code == 403

    def test_moves_an_image_to_the_trash(self, admin):
        image = ImageFactory()

        response = change(admin, image, _trash="yes")

        assert "in the trash" in said(response)[-1]
        assert Image.objects.in_trash().count() == 1

    def test_makes_and_deletes_nothing(self, admin):
        image = ImageFactory()

        assert admin.get(reverse("admin:albums_image_add")).status_code == 403
        assert admin.get(reverse("admin:albums_image_delete", args=[image.pk])).status_code == 403

    def test_asks_as_many_questions_for_many_labels_as_for_one(self, admin, django_assert_max_num_queries):
        image = ImageFactory()
        url = reverse("admin:albums_image_change", args=[image.pk])
        put_label(image, "tag", "first", "human")
        admin.get(url)
        with django_assert_max_num_queries(9) as few:
            admin.get(url)

        for number in range(30):
            Label.objects.create(image=image, kind="tag", text=f"tag {number}", identity=str(number))
            AlbumFactory(images=[image])
        with django_assert_max_num_queries(9) as many:
            admin.get(url)
        assert len(many) == len(few)


class TestLabels:
    def test_writes_changes_and_removes(self, admin):
        image = ImageFactory()
        by_model = put_label(image, "caption", "a hart", "model", model="captioner 1", confidence=0.5)
        tag = put_label(image, "tag", "red", "human")
        AuditEntry.objects.all().delete()

        response = change(
            admin,
            image,
            labels_form([(by_model, "a heart"), (tag, None)], [("tag", "heart"), ("tag", "suit of cards")]),
        )

        assert "was changed successfully" in said(response)[0]
        labels = {(label.kind, label.text, label.origin) for label in image.labels.all()}
        assert labels == {
            ("caption", "a heart", "human"),
            ("tag", "heart", "human"),
            ("tag", "suit of cards", "human"),
        }
        assert image.labels.get(text="heart").created_by.username == "ada"
        assert {revision.text for revision in image.label_revisions.all()} == {"a hart", "red"}
        assert {"label.change", "label.create", "label.delete"} <= set(recorded_in_admin())

    def test_shows_who_says_so(self, admin):
        image = ImageFactory()
        put_label(image, "tag", "heart", "model", model="tagger 3", confidence=0.93)

        assert (
            "tagger 3 (93%)"
            in admin.get(reverse("admin:albums_image_change", args=[image.pk])).content.decode()
        )

    def test_refuses_what_the_service_would(self, admin):
        image = ImageFactory()

        response = change(admin, image, labels_form(new=[("tag", "x" * 101)]))

        assert "at most 100 characters" in response.content.decode()
        assert not image.labels.exists()

    def test_saves_nothing_when_one_of_them_is_there_already(self, admin):
        image = ImageFactory()
        first, second = (put_label(image, "tag", text, "human") for text in ("red", "blue"))

        response = change(admin, image, labels_form([(first, "blue"), (second, "blue")]), name="other")

        assert said(response) == ["Nothing was saved. The image has this tag already."]
        image.refresh_from_db()
        assert image.name != "other"

    def test_leaves_out_more_than_a_form_can_send(self, admin):
        image = ImageFactory()
        Label.objects.bulk_create(
            Label(image=image, kind="tag", text=str(number), identity=str(number))
            for number in range(MOST_LABELS + 1)
        )

        page = admin.get(reverse("admin:albums_image_change", args=[image.pk]))

        assert page.context["inline_admin_formsets"] == []


class TestUpload:
    url = reverse("admin:albums_image_upload")

    def test_shows_the_limits_and_where_to_send_to(self, admin, set_config):
        set_config("uploads: {max_files: 7}")

        page = admin.get(self.url).content.decode()

        assert 'action="/api/images/upload"' in page
        assert 'data-files="7"' in page

    def test_is_for_staff(self, client):
        client.force_login(UserFactory())

        assert client.get(self.url).status_code == 302

    def test_the_list_leads_there(self, admin):
        assert self.url in admin.get(LIST).content.decode()
