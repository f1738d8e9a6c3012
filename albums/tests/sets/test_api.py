import json
import uuid

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from albums.models import Album
from albums.tests.factories import AlbumFactory
from albums.tests.sets.decks import deck
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.tests.canaries import CANARY

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client):
    client.force_login(UserFactory(staff=True, username="ada"))
    return client


@pytest.fixture
def album():
    album = deck()
    album.save()
    return album


def render(client, album, **query):
    return client.get(f"/api/albums/{album.pk}/render", query)


def upload(client, album, body, content_type="text/csv"):
    return client.put(f"/api/albums/{album.pk}/rows.csv", body, content_type=content_type)


def errors(response, status=400):
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    return [(error["pointer"], error["code"]) for error in response.json().get("errors", [])]


class TestRender:
    def test_answers_with_names_and_prompts(self, staff, album):
        response = render(staff, album, theme=" linocut ")

        assert response.status_code == 200
        assert response.json() == {
            "results": [
                {
                    "name": "Ace_of_Hearts",
                    "prompt": "a playing card. Art style: linocut. Ace of Hearts. clean edges",
                },
                {
                    "name": "King_of_Spades",
                    "prompt": "a playing card. Art style: linocut. King of Spades. clean edges",
                },
            ]
        }

    def test_without_a_theme_it_takes_the_example(self, staff, album):
        assert "Art style: woodcut" in render(staff, album).json()["results"][0]["prompt"]

    @pytest.mark.parametrize("theme", ["", "   ", "x" * 501, "a\x00b"])
    def test_refuses_a_theme_that_is_no_good(self, staff, album, theme):
        [(pointer, _)] = errors(render(staff, album, theme=theme))

        assert pointer == "/theme"

    def test_refuses_a_theme_with_which_a_prompt_grows_too_long(self, staff):
        album = deck(base_prompt="x" * 1900)
        album.save()

        assert errors(render(staff, album, theme="y" * 100)) == [("/theme", "prompt_too_long")]

    def test_refuses_what_it_does_not_know(self, staff, album):
        assert errors(render(staff, album, them="ink")) == [("/them", "unknown_parameter")]

    def test_an_album_that_is_no_set_is_a_conflict(self, staff):
        response = render(staff, AlbumFactory())

        assert errors(response, 409) == []
        assert response.json()["code"] == "not_a_set"

    def test_a_set_that_is_broken_cannot_be_rendered_now(self, staff, album):
        Album.objects.update(set_rows=[])

        response = render(staff, album)

        assert errors(response, 422) == []
        assert response.json()["code"] == "set_broken"

    def test_is_for_staff(self, client, album):
        Album.objects.update(visibility="public")
        assert errors(render(client, album), 401) == []
        client.force_login(UserFactory())
        assert errors(render(client, album), 403) == []

    def test_an_album_that_is_not_there(self, staff):
        assert errors(render(staff, Album(pk=uuid.uuid4()), theme=""), 404) == []

    def test_costs_one_query_for_the_album_however_many_rows(self, django_assert_num_queries, album):
        client = APIClient()
        client.force_authenticate(UserFactory(staff=True))
        Album.objects.update(set_rows=album.set_rows * 200)

        with django_assert_num_queries(1):
            assert len(render(client, album).json()["results"]) == 400


class TestDownload:
    def test_is_the_rows_with_the_columns_in_their_order(self, staff, album):
        response = staff.get(f"/api/albums/{album.pk}/rows.csv", headers={"Accept": "text/csv"})

        assert response.status_code == 200
        assert response["Content-Type"] == "text/csv; charset=utf-8"
        assert response["Content-Disposition"] == 'attachment; filename="a deck.csv"'
        assert response.content == b"value,suit\r\nAce,Hearts\r\nKing,Spades\r\n"

    def test_what_is_downloaded_can_be_uploaded(self, staff, album):
        rows = [{"value": "=1+1", "suit": ' "quoted", or not'}, {"value": "é", "suit": "two\nlines"}]
        Album.objects.update(set_rows=rows)

        response = upload(staff, album, staff.get(f"/api/albums/{album.pk}/rows.csv").content)

        assert response.status_code == 200
        assert response.json()["set_rows"] == [
            {name: cell.strip() for name, cell in row.items()} for row in rows
        ]

    def test_is_for_staff(self, client, album):
        Album.objects.update(visibility="public")

        assert client.get(f"/api/albums/{album.pk}/rows.csv").status_code == 401


class TestUpload:
    def test_replaces_the_rows(self, staff, album):
        response = upload(staff, album, "suit,mood,value\nClubs,calm,Two\n")

        assert response.status_code == 200
        assert response.json() == {
            "template_item_count": 1,
            "columns": ["suit", "mood", "value"],
            "set_rows": [{"suit": "Clubs", "mood": "calm", "value": "Two"}],
        }
        album.refresh_from_db()
        assert list(album.set_rows[0]) == ["suit", "mood", "value"]

    def test_takes_a_form(self, staff, album):
        client = APIClient()
        client.force_authenticate(UserFactory(staff=True))
        file = SimpleUploadedFile("cards.csv", b"value,suit\nTwo,Clubs\n", content_type="text/csv")

        response = client.put(f"/api/albums/{album.pk}/rows.csv", {"file": file}, format="multipart")

        assert response.status_code == 200
        album.refresh_from_db()
        assert album.set_rows == [{"value": "Two", "suit": "Clubs"}]

    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            ({}, ("/file", "required")),
            ({"file": "not a file"}, ("/file", "invalid")),
            ({"fil": SimpleUploadedFile("a.csv", b"a\n1\n")}, ("/file", "required")),
            ({"file": SimpleUploadedFile("a.csv", b"a\n1\n"), "theme": "x"}, ("/theme", "unknown_field")),
            ({"file": [SimpleUploadedFile("a", b"a\n1\n")] * 2}, ("/file", "invalid")),
        ],
    )
    def test_refuses_other_forms(self, album, form, expected):
        client = APIClient()
        client.force_authenticate(UserFactory(staff=True))

        response = client.put(f"/api/albums/{album.pk}/rows.csv", form, format="multipart")

        assert expected in errors(response)

    def test_is_recorded_without_telling_what_the_rows_say(self, staff, album):
        rows = [{"value": CANARY, "suit": "Hearts"}]

        assert upload(staff, album, f"value,suit\n{CANARY},Hearts\n").status_code == 200

        entry = AuditEntry.objects.get(action="album.replace_rows")
        assert (entry.actor_name, entry.target_id) == ("ada", str(album.pk))
        assert entry.after["set_rows"]["length"] == len(json.dumps(rows))

    def test_is_recorded_even_when_nothing_changes(self, staff, album):
        upload(staff, album, "value,suit\nAce,Hearts\nKing,Spades\n")

        assert AuditEntry.objects.filter(action="album.replace_rows").count() == 1

    def test_rows_that_lack_a_column_of_the_template_change_nothing(self, staff, album):
        assert errors(upload(staff, album, "value\nAce\n")) == [("/prompt_template", "unknown_placeholder")]

        before = album.set_rows
        album.refresh_from_db()
        assert album.set_rows == before
        assert not AuditEntry.objects.filter(action="album.replace_rows").exists()

    def test_tells_all_that_is_wrong_at_once(self, staff, album):
        response = upload(staff, album, "value,suit\nAce\nKing,Spades\nTwo,Clubs,x\n")

        assert errors(response) == [("/set_rows/0", "ragged_row"), ("/set_rows/2", "ragged_row")]
        assert response.json()["detail"] == "Some fields are not valid."

    def test_a_prompt_that_is_too_long_is_pointed_at_by_its_row(self, staff, album):
        response = upload(staff, album, f"value,suit\nAce,Hearts\nKing,{'x' * 1990}\n")

        assert errors(response) == [("/set_rows/1", "prompt_too_long")]

    def test_a_set_is_not_emptied(self, staff, album):
        assert errors(upload(staff, album, "value,suit\n")) == [("/set_rows", "empty")]

    def test_an_album_may_have_rows_before_it_is_a_set(self, staff):
        album = AlbumFactory()

        assert upload(staff, album, "a\n1\n").status_code == 200

        album.refresh_from_db()
        assert (album.set_rows, album.is_set_template) == ([{"a": "1"}], False)

    @pytest.mark.parametrize(
        "content_type", ["application/json", "text/plain", "text/csv; charset=latin-1", "text/csv; charset=x"]
    )
    def test_refuses_other_media_types(self, staff, album, content_type):
        assert errors(upload(staff, album, "value,suit\n", content_type), 415) == []

    def test_refuses_a_file_that_is_too_large(self, staff, album):
        for size in (1024 * 1024 + 1, 2 * 1024 * 1024):
            assert errors(upload(staff, album, b"a\n" + b"x" * (size - 2)), 413) == []

    def test_is_for_staff(self, client, album):
        Album.objects.update(visibility="public")

        assert errors(upload(client, album, "nonsense"), 401) == []

    def test_an_album_that_is_not_there_comes_before_what_is_wrong_with_the_file(self, staff):
        assert errors(upload(staff, Album(pk=uuid.uuid4()), "", "text/nothing"), 404) == []
