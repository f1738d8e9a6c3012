import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from albums.models import Label, LabelEdit
from albums.tests.factories import AlbumFactory, ImageFactory, LabelFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client):
    client.force_login(UserFactory(staff=True, username="ada"))
    return client


@pytest.fixture
def album():
    images = [ImageFactory() for _ in range(3)]
    for image in images[:2]:
        LabelFactory(image=image, text="a red heart")
    return AlbumFactory(images=images)


def post(client, url, **body):
    return client.post(url, body, content_type="application/json")


def texts():
    return sorted(Label.objects.values_list("text", flat=True))


class TestApi:
    def test_captions_of_an_album_are_changed_and_changed_back(self, staff, album):
        response = post(staff, "/api/labels/bulk", album=str(album.pk), action="prefix", text="ohwx, ")

        assert response.status_code == 201
        edit = response.json()
        assert response["Location"] == f"/api/labels/bulk/{edit['id']}"
        assert (edit["images"], edit["changed"], edit["skipped"]) == (3, 2, {"no_caption": 1})
        assert edit["examples"][0]["after"] == "ohwx, a red heart"
        assert texts() == ["ohwx, a red heart"] * 2
        assert staff.get(response["Location"]).json()["owner"] == "ada"

        undone = post(staff, f"{response['Location']}/undo")

        assert undone.json() == {"restored": 2, "kept": 0}
        assert texts() == ["a red heart"] * 2
        assert post(staff, f"{response['Location']}/undo").json()["code"] == "already_undone"
        (row,) = staff.get("/api/labels/bulk").json()["results"]
        assert row["undone_by"] == "ada"

    def test_a_preview_changes_nothing(self, staff, album):
        ids = [str(pk) for pk in album.images.values_list("pk", flat=True)]

        response = post(
            staff,
            "/api/labels/bulk",
            image_ids=ids,
            action="replace",
            text="red",
            replacement="blue",
            preview=True,
        )

        assert response.status_code == 200
        assert response.json()["changed"] == 2
        assert response.json()["examples"][0]["before"] == "a red heart"
        assert texts() == ["a red heart"] * 2
        assert not LabelEdit.objects.exists()

    def test_each_edit_and_undo_is_one_entry_in_the_audit_trail(self, staff, album):
        edit = post(staff, "/api/labels/bulk", album=str(album.pk), action="add_tag", text="heart").json()
        post(staff, f"/api/labels/bulk/{edit['id']}/undo")

        entries = AuditEntry.objects.filter(target_type="albums.labeledit").order_by("pk")
        assert [(entry.action, entry.actor_name) for entry in entries] == [
            ("labeledit.create", "ada"),
            ("labeledit.undo", "ada"),
        ]
        assert AuditEntry.objects.filter(target_type="albums.label").count() == 0

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"action": "prefix", "text": "x"}, "/image_ids"),
            ({"album": "{album}", "image_ids": ["{image}"], "action": "prefix", "text": "x"}, "/image_ids"),
            ({"image_ids": ["12"], "action": "prefix", "text": "x"}, "/image_ids/0"),
            ({"image_ids": [], "action": "prefix", "text": "x"}, "/image_ids"),
            ({"album": "12", "action": "prefix", "text": "x"}, "/album"),
            ({"album": "{album}", "action": "shout", "text": "x"}, "/action"),
            ({"album": "{album}", "action": "prefix", "text": ""}, "/text"),
            ({"album": "{album}", "action": "prefix"}, "/text"),
            ({"album": "{album}", "action": "add_tag", "text": "x" * 101}, "/text"),
            ({"album": "{album}", "action": "prefix", "text": "x", "replacement": "y"}, "/replacement"),
            ({"album": "{album}", "action": "prefix", "text": "x", "preview": 1}, "/preview"),
        ],
    )
    def test_what_is_wrong_is_pointed_at(self, staff, album, body, pointer):
        known = {"{album}": str(album.pk), "{image}": str(album.images.first().pk)}
        fill = lambda value: known.get(value, value) if isinstance(value, str) else value  # noqa: E731
        body = {
            name: [fill(one) for one in value] if isinstance(value, list) else fill(value)
            for name, value in body.items()
        }

        response = post(staff, "/api/labels/bulk", **body)

        assert response.status_code == 400
        assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


class TestAdmin:
    def act(self, client, model, rows, **values):
        return client.post(
            reverse(f"admin:albums_{model}_changelist"),
            {"action": "edit_labels", "_selected_action": [row.pk for row in rows]} | values,
            follow=True,
        )

    @pytest.mark.parametrize("model", ["image", "album"])
    def test_an_edit_is_asked_for_shown_and_done(self, staff, album, model):
        rows = [album] if model == "album" else list(album.images.all())
        edit = {"confirmed": "yes", "edit": "suffix", "text": ", in ink"}

        assert "What to do" in self.act(staff, model, rows).content.decode()
        shown = self.act(staff, model, rows, **edit, preview="on").content.decode()
        assert "2 of 3 images would be changed. 1 have no caption." in shown
        assert "“a red heart” becomes “a red heart, in ink”." in shown
        assert texts() == ["a red heart"] * 2

        done = self.act(staff, model, rows, **edit).content.decode()
        assert "2 of 3 images are changed." in done
        assert reverse("admin:albums_labeledit_change", args=[LabelEdit.objects.get().pk]) in done
        assert texts() == ["a red heart, in ink"] * 2

    def test_what_is_wrong_stands_beside_its_field(self, staff, album):
        values = {"confirmed": "yes", "edit": "prefix", "text": "x", "replacement": "y"}

        page = self.act(staff, "album", [album], **values).content.decode()

        assert "Only “replace” has a replacement." in page
        assert not LabelEdit.objects.exists()

    def test_an_edit_is_taken_back(self, staff, album):
        self.act(staff, "album", [album], confirmed="yes", edit="prefix", text="x ")
        edit = LabelEdit.objects.get()
        url = reverse("admin:albums_labeledit_changelist")

        for sentence in (
            "2 labels are as they were.",
            "Nothing was changed. The edit has been taken back already.",
        ):
            page = staff.post(url, {"action": "undo", "_selected_action": [edit.pk]}, follow=True)
            assert sentence in page.content.decode()

        assert texts() == ["a red heart"] * 2

    @pytest.mark.parametrize("where", ["/api/labels/bulk", "/admin/albums/labeledit/"])
    def test_lists_do_not_read_what_each_edit_has_made(self, staff, album, where):
        self.act(staff, "album", [album], confirmed="yes", edit="add_tag", text="x")
        assert LabelEdit.objects.get().made

        with CaptureQueriesContext(connection) as queries:
            assert staff.get(where).status_code == 200

        edits = [query["sql"] for query in queries if 'FROM "albums_labeledit"' in query["sql"]]
        assert edits
        assert not any('"made"' in sql for sql in edits)

    def test_the_page_of_an_edit_is_to_be_read(self, staff, album):
        self.act(staff, "album", [album], confirmed="yes", edit="prefix", text="x ")

        page = staff.get(reverse("admin:albums_labeledit_change", args=[LabelEdit.objects.get().pk]))

        assert page.status_code == 200
        assert b'name="text"' not in page.content
