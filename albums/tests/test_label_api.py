import uuid
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from albums.models import Label, LabelRevision
from albums.services import put_label
from albums.tests.factories import AlbumFactory, ImageFactory, LabelFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.services import create_token
from imagehub.accounts.tests.factories import UserFactory
from imagehub.tests.canaries import CANARY

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return UserFactory(staff=True, username="ada")


@pytest.fixture
def staff(ada):
    client = APIClient()
    client.force_login(ada)
    return client


@pytest.fixture
def image():
    return ImageFactory(public=True)


def labels_of(image):
    return f"/api/images/{image.pk}/labels"


def path_of(label):
    return f"/api/images/{label.image_id}/labels/{label.pk}"


def rows(response):
    assert response.status_code == 200, response.content
    return response.json()["results"]


def pointers(response):
    assert response.status_code == 400, response.content
    return [error["pointer"] for error in response.json()["errors"]]


class TestReading:
    def test_everybody_reads_what_is_said_of_public_images_but_not_who_wrote_it(self, visitor, image, ada):
        label = LabelFactory(image=image, text="two hearts", created_by=ada)

        listed = rows(visitor.get(labels_of(image)))

        assert listed[0].pop("created_at").endswith("Z")
        assert listed == [
            {
                "id": str(label.pk),
                "kind": "caption",
                "text": "two hearts",
                "origin": "human",
                "model": "",
                "confidence": None,
            }
        ]
        assert visitor.get(path_of(label)).json()["text"] == "two hearts"

    def test_staff_are_told_who_wrote_it(self, staff, image, ada):
        label = LabelFactory(image=image, created_by=ada)

        assert rows(staff.get(labels_of(image)))[0]["created_by"] == "ada"
        assert staff.get(path_of(label)).json()["created_by"] == "ada"

    def test_labels_of_hidden_images_do_not_exist(self, visitor, staff):
        private = LabelFactory(image=ImageFactory())
        trashed = LabelFactory(image=ImageFactory(public=True, deleted_at=timezone.now()))

        for label, client in ((private, visitor), (trashed, visitor), (trashed, staff)):
            for path in (labels_of(label.image), path_of(label)):
                assert client.get(path).status_code == 404
        assert staff.get(path_of(private)).status_code == 200

    def test_a_label_is_found_only_under_its_own_image(self, staff, image):
        label = LabelFactory()
        path = f"/api/images/{image.pk}/labels/{label.pk}"

        assert staff.get(path).status_code == 404
        assert staff.patch(path, {"text": "a"}).status_code == 404
        assert staff.delete(path).status_code == 404
        assert Label.objects.filter(pk=label.pk).exists()

    def test_captions_come_first_page_by_page(self, visitor, image, django_assert_num_queries):
        tags = [LabelFactory(image=image, tag=True) for _ in range(3)]
        caption = LabelFactory(image=image)

        seen, path = [], f"{labels_of(image)}?limit=2"
        while path:
            with django_assert_num_queries(2):  # the image, its labels
                response = visitor.get(path)
            seen += [row["id"] for row in rows(response)]
            path = response.json()["next"]

        assert seen == [str(label.pk) for label in (caption, *tags)]

    def test_filters_keep_what_they_name(self, visitor, image):
        LabelFactory(image=image)
        tag = LabelFactory(image=image, tag=True, origin="model", model="tagger")

        for query in ("kind=tag", "origin=model"):
            assert [row["id"] for row in rows(visitor.get(f"{labels_of(image)}?{query}"))] == [str(tag.pk)]
        for query in ("kind=title", "origin=me", "colour=red"):
            assert visitor.get(f"{labels_of(image)}?{query}").status_code == 400


class TestWriting:
    def test_a_person_says_something(self, staff, image, ada):
        response = staff.post(labels_of(image), {"kind": "tag", "text": " Two  hearts "})

        label = Label.objects.get()
        assert response.status_code == 201
        assert response["Location"] == path_of(label)
        assert response.json()["text"] == "Two hearts"
        assert (label.origin, label.created_by) == ("human", ada)

    def test_a_tool_says_what_a_model_said(self, visitor, image, ada):
        _, secret = create_token(ada, name="tagger", scopes=["admin"], expires_at=None)
        body = {"kind": "tag", "text": "hearts", "model": "tagger 3", "confidence": 0.75}

        response = visitor.post(labels_of(image), body, headers={"Authorization": f"Bearer {secret}"})

        assert response.status_code == 201
        label = Label.objects.get()
        assert (label.origin, label.model, label.confidence) == ("model", "tagger 3", 0.75)

    def test_saying_it_again_changes_what_is_there(self, staff, image):
        first = staff.post(labels_of(image), {"kind": "caption", "text": f"two harts {CANARY}"})
        again = staff.post(labels_of(image), {"kind": "caption", "text": f"two hearts {CANARY}"})

        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"]
        assert [row["text"] for row in rows(staff.get(f"{labels_of(image)}/history"))] == [
            f"two harts {CANARY}"
        ]

    def test_what_people_said_stays_unless_asked(self, staff, image):
        put_label(image, "tag", "Hearts", "human")
        body = {"kind": "tag", "text": "hearts", "model": "tagger"}

        assert staff.post(labels_of(image), body).json()["origin"] == "human"
        assert staff.post(labels_of(image), body | {"replace_human": True}).json()["origin"] == "model"

    @pytest.mark.parametrize(
        ("pointer", "values"),
        [
            ("/kind", {"kind": "title"}),
            ("/text", {"text": "  "}),
            ("/text", {"text": 7}),
            ("/text", {"text": "x" * 101}),
            ("/text", {"kind": "caption", "text": "x" * 2001}),
            ("/text", {"text": "a\0b"}),
            ("/origin", {"origin": "scrape"}),
            ("/origin", {"origin": "import"}),
            ("/model", {"origin": "model"}),
            ("/model", {"origin": "human", "model": "tagger"}),
            ("/confidence", {"confidence": 0.5}),
            ("/confidence", {"model": "tagger", "confidence": 2}),
            ("/confidence", {"model": "tagger", "confidence": True}),
            ("/replace_human", {"replace_human": True}),
            ("/created_by", {"created_by": 1}),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, staff, image, pointer, values):
        response = staff.post(labels_of(image), {"kind": "tag", "text": "hearts"} | values)

        assert pointers(response) == [pointer]
        assert not Label.objects.exists()

    def test_a_person_corrects_a_model(self, staff, image, ada):
        label = put_label(image, "caption", "a shape", "model", model="blip", confidence=0.5)

        response = staff.patch(path_of(label), {"text": "two hearts"})

        assert response.status_code == 200
        body = response.json()
        assert (body["id"], body["text"], body["origin"]) == (str(label.pk), "two hearts", "human")
        assert (body["model"], body["confidence"], body["created_by"]) == ("", None, "ada")

    @pytest.mark.parametrize(
        "body", [{}, {"text": ""}, {"text": "a", "kind": "caption"}, {"origin": "model"}]
    )
    def test_nothing_but_the_text_is_changed(self, staff, image, body):
        assert staff.patch(path_of(LabelFactory(image=image, tag=True)), body).status_code == 400

    def test_the_same_twice_is_a_conflict(self, staff, image):
        put_label(image, "tag", "hearts", "human")
        label = put_label(image, "tag", "harts", "human")

        response = staff.patch(path_of(label), {"text": "HEARTS"})

        assert (response.status_code, response.json()["code"]) == (409, "label_exists")

    def test_a_label_is_removed(self, staff, image):
        label = LabelFactory(image=image)

        assert staff.delete(path_of(label)).status_code == 204
        assert staff.delete(path_of(label)).status_code == 404
        assert LabelRevision.objects.get().change == "removed"

    def test_only_staff_write(self, visitor, image):
        label = LabelFactory(image=image)
        signed_in = APIClient()
        signed_in.force_login(UserFactory())

        for client, status in ((visitor, 401), (signed_in, 403)):
            assert client.post(labels_of(image), {"kind": "tag", "text": "a"}).status_code == status
            assert client.patch(path_of(label), {"text": "a"}).status_code == status
            assert client.delete(path_of(label)).status_code == status
            assert client.get(f"{labels_of(image)}/history").status_code == status


class TestHistory:
    def test_tells_what_was_said_by_whom_and_until_when(self, staff, image, ada):
        label = put_label(image, "tag", "heart", "model", model="tagger", confidence=0.5)
        staff.patch(path_of(label), {"text": "hearts"})
        staff.delete(path_of(label))

        latest, first = rows(staff.get(f"{labels_of(image)}/history"))

        assert (latest["change"], latest["text"], latest["origin"]) == ("removed", "hearts", "human")
        assert first["written_at"] < first.pop("changed_at")
        first.pop("written_at")
        assert first == {
            "label_id": str(label.pk),
            "change": "replaced",
            "kind": "tag",
            "text": "heart",
            "origin": "model",
            "model": "tagger",
            "confidence": 0.5,
            "changed_by": "ada",
        }

    def test_is_walked_page_by_page(self, staff, image):
        for number in range(5):
            put_label(image, "caption", f"try {number}", "human")

        first = staff.get(f"{labels_of(image)}/history?limit=3")
        rest = staff.get(first.json()["next"])

        assert [row["text"] for row in rows(first) + rows(rest)] == ["try 3", "try 2", "try 1", "try 0"]


def test_every_change_is_in_the_audit_trail_and_no_text_is(staff, image):
    text = f"two hearts {CANARY}"
    put_label(image, "tag", "harts", "model", model="tagger")

    staff.post(labels_of(image), {"kind": "tag", "text": text})
    staff.post(labels_of(image), {"kind": "tag", "text": text.upper()})
    label = Label.objects.get(origin="human")
    staff.patch(path_of(label), {"text": f"hearts {CANARY}"})
    staff.delete(path_of(label))

    entries = AuditEntry.objects.filter(target_type="albums.label").order_by("id")
    assert [(entry.action, entry.target_id) for entry in entries] == [
        (f"label.{verb}", str(label.pk)) for verb in ("create", "change", "change", "delete")
    ]
    assert entries[1].before["text"]["length"] == entries[1].after["text"]["length"] == len(text)
    assert entries[1].before["text"]["sha256"] != entries[1].after["text"]["sha256"]
    assert "heart" not in str([(entry.before, entry.after, entry.target_label) for entry in entries])


class TestAnalytics:
    def analytics(self, staff, album):
        response = staff.get(f"/api/albums/{album.pk}/labels/analytics")
        assert response.status_code == 200, response.content
        return response.json()

    def test_are_for_staff(self, visitor, staff):
        album = AlbumFactory(public=True)

        assert visitor.get(f"/api/albums/{album.pk}/labels/analytics").status_code == 401
        assert staff.get(f"/api/albums/{uuid.uuid4()}/labels/analytics").status_code == 404

    def test_have_the_fields_of_the_system_before(self, staff):
        now = timezone.now()
        trashed = ImageFactory(deleted_at=now)
        captioned, tagged, bare = ImageFactory.create_batch(3)
        album = AlbumFactory(images=[captioned, tagged, bare, trashed])
        put_label(captioned, "caption", "a", "human")
        put_label(captioned, "caption", "b", "model", model="blip")
        put_label(captioned, "tag", "Red", "scrape")
        put_label(tagged, "tag", "red", "model", model="tagger")
        last = put_label(tagged, "tag", "heart", "model", model="tagger")
        put_label(trashed, "tag", "hidden", "human")
        put_label(ImageFactory(), "tag", "elsewhere", "human")
        Label.objects.filter(pk=last.pk).update(updated_at=now + timedelta(hours=1))

        body = self.analytics(staff, album)

        assert body.pop("last_labeled_at").startswith(f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M}")
        assert body == {
            "album_id": str(album.pk),
            "image_count": 3,
            "labels_total": 5,
            "labels_by_type": {"caption": 2, "tag": 3},
            "labels_by_origin": {"human": 1, "import": 0, "scrape": 1, "model": 3},
            "images_with_labels": 2,
            "images_with_manual_labels": 1,
            "images_with_captions": 1,
            "unlabeled_images": 1,
            "average_labels_per_image": 1.67,
            "coverage": {"labels_percent": 66.67, "manual_percent": 33.33, "caption_percent": 33.33},
            "top_tags": [{"label_text": "red", "count": 2}, {"label_text": "heart", "count": 1}],
        }

    def test_of_an_empty_album_are_zeros(self, staff):
        body = self.analytics(staff, AlbumFactory())

        assert body["image_count"] == body["labels_total"] == body["unlabeled_images"] == 0
        assert body["average_labels_per_image"] == 0
        assert set(body["coverage"].values()) == {0}
        assert (body["top_tags"], body["last_labeled_at"]) == ([], None)

    def test_name_the_ten_most_frequent_tags(self, staff):
        images = ImageFactory.create_batch(2)
        album = AlbumFactory(images=images)
        for number in range(12):
            put_label(images[0], "tag", f"tag {number:02}", "human")
        put_label(images[1], "tag", "tag 11", "human")

        top = self.analytics(staff, album)["top_tags"]

        assert [tag["label_text"] for tag in top] == ["tag 11", *(f"tag {number:02}" for number in range(9))]

    @pytest.mark.parametrize("images", [1, 30])
    def test_cost_the_same_queries_for_many_as_for_one(self, staff, images, django_assert_num_queries):
        album = AlbumFactory(images=ImageFactory.create_batch(images))
        for image in album.images.all():
            put_label(image, "tag", "red", "human")

        with django_assert_num_queries(6):  # the session, its user, the album, and three
            assert self.analytics(staff, album)["labels_total"] == images
