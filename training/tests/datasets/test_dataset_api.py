import uuid

import pytest
from rest_framework.test import APIClient

from albums.models import Image
from albums.tests.factories import AlbumFactory
from imagehub.accounts.tests.factories import UserFactory
from training.models import Dataset
from training.tests.datasets.albums import FEW, captioned_album

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _few_are_enough(set_config):
    set_config(FEW)


@pytest.fixture
def staff():
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    return client


def ask(client, **body):
    return client.post("/api/training/preflight", body, format="json")


class TestPreflight:
    def test_a_report_tells_what_a_run_would_be_like(self, staff):
        album = captioned_album(6)

        response = ask(
            staff,
            album_ids=[str(album.pk)],
            trigger_word="ohwx",
            config={"steps": 60, "resolution": 64, "validation_share": 0},
        )

        assert response.status_code == 200
        report = response.json()
        assert report["ready"] is True
        assert report["blockers"] == []
        assert report["counts"]["captioned"] == 6
        assert report["estimate"]["seconds"] > 0
        assert report["buckets"] == [{"width": 64, "height": 64, "images": 6}]
        assert (report["steps_per_epoch"], report["epochs"]) == (6, 10.0)
        assert (report["estimate"]["device"], report["estimate"]["memory_basis"]) == ("cpu", "calculated")
        assert report["estimate"]["disk_bytes"] == sum(report["estimate"]["disk"].values())
        warnings = {finding["code"]: finding for finding in report["warnings"]}
        assert warnings["captions_without_trigger_word"]["count"] == 6
        assert warnings["captions_without_trigger_word"]["pointer"] == "/trigger_word"
        assert not Dataset.objects.exists()

    def test_too_few_images_are_a_finding_and_no_error(self, staff):
        response = ask(staff, album_ids=[str(captioned_album(2).pk)])

        assert response.status_code == 200
        assert response.json()["ready"] is False
        assert response.json()["blockers"][0]["code"] == "not_enough_images"

    @pytest.mark.parametrize(
        ("ids", "pointer"),
        [
            (["{album}", "12"], "/album_ids/1"),
            (["{album}", 12], "/album_ids/1"),
            (["{album}", "{album}"], "/album_ids/1"),
            (["{album}", str(uuid.uuid4())], "/album_ids/1"),
            ("12", "/album_ids"),
            ("{album}", "/album_ids"),
            ([], "/album_ids"),
            (None, "/album_ids"),
        ],
    )
    def test_wrong_albums_are_pointed_at(self, staff, ids, pointer):
        album = str(captioned_album(4).pk)
        fill = lambda value: album if value == "{album}" else value  # noqa: E731
        ids = [fill(value) for value in ids] if isinstance(ids, list) else fill(ids)

        response = ask(staff, album_ids=ids)

        assert response.status_code == 400
        assert [error["pointer"] for error in response.json()["errors"]] == [pointer]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"config": {"rank": "8"}}, "/config/rank"),
            ({"config": {"ranc": 8}}, "/config/ranc"),
            ({"config": []}, "/config"),
            ({"base_model": "unheard-of"}, "/base_model"),
            ({"trigger_word": 5}, "/trigger_word"),
            ({"rank": 8}, "/rank"),
        ],
    )
    def test_whatever_else_is_wrong_is_pointed_at(self, staff, body, pointer):
        response = ask(staff, album_ids=[str(captioned_album(4).pk)], **body)

        assert response.status_code == 400
        assert [error["pointer"] for error in response.json()["errors"]] == [pointer]

    def test_more_images_than_a_data_set_may_have_are_told(self, staff, set_config):
        set_config(FEW.replace("{minimum_images: 3", "{max_images: 4, minimum_images: 3"))

        response = ask(staff, album_ids=[str(captioned_album(5).pk)])

        assert response.status_code == 422
        assert response.json()["code"] == "too_many_images"

    def test_it_is_for_staff(self):
        client = APIClient()
        assert ask(client, album_ids=[]).status_code == 401
        client.force_authenticate(UserFactory())
        assert ask(client, album_ids=[]).status_code == 403


class TestAlbums:
    def test_each_album_tells_how_far_it_is(self, staff):
        ready, not_ready = captioned_album(3), captioned_album(2, first=10)

        found = {row["id"]: row for row in staff.get("/api/training/albums").json()["results"]}

        assert found[str(ready.pk)] | {"ready": True, "captioned_images": 3} == found[str(ready.pk)]
        assert found[str(not_ready.pk)]["ready"] is False
        assert found[str(not_ready.pk)]["minimum_images"] == 3

    def test_everybody_sees_public_albums_and_public_images_only(self):
        public = captioned_album(4, public=True)
        captioned_album(3, first=10)
        shown = public.images.first()
        Image.objects.filter(pk=shown.pk).update(visibility="public")
        public.refresh_from_db()

        (row,) = APIClient().get("/api/training/albums").json()["results"]

        assert row["id"] == str(public.pk)
        assert row["captioned_images"] == 1

    def test_a_page_takes_as_many_queries_as_one_album(self, staff, django_assert_num_queries):
        for number in range(5):
            AlbumFactory(name=f"album {number}")

        with django_assert_num_queries(2):
            assert len(staff.get("/api/training/albums").json()["results"]) == 5
