"""The contract of ``/api/loras``."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from rest_framework.test import APIClient

from albums.models import Image, ImageLora, Visibility
from albums.tests.factories import ImageFactory
from imagehub import storage
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.roots import models_root
from training.models import Adapter, BaseModel
from training.tests.factories import AdapterFactory
from training.tests.weight_headers import write_header, write_sd1_adapter

pytestmark = pytest.mark.django_db

STAFF_ONLY = {
    "description",
    "owner",
    "source",
    "path",
    "sha256",
    "layout",
    "alpha",
    "targets",
    "base_model_name",
    "preview",
}
NO_LIMIT = "{storage: {minimum_free_bytes: 0}, rate_limits: {upload: {limit: 0, window_seconds: 60}}}"


@pytest.fixture
def staff():
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True, username="ann"))
    return client


@pytest.fixture
def public():
    return APIClient()


@pytest.fixture(autouse=True)
def _configuration(set_config):
    set_config(NO_LIMIT)


def file_of(path, name="zwx.safetensors"):
    return SimpleUploadedFile(name, path.read_bytes(), "application/octet-stream")


def send(client, tmp_path, *, mark=0, metadata=None, **fields):
    file = fields.pop("file", None) or file_of(
        write_sd1_adapter(tmp_path / "sent", mark=mark, metadata=metadata)
    )
    return client.post("/api/loras", {"file": file, **fields}, format="multipart")


class TestImport:
    def test_answers_201_with_what_the_file_says(self, staff, tmp_path):
        response = send(staff, tmp_path, metadata={"modelspec.trigger_phrase": "zwx"})

        adapter = response.json()
        assert (response.status_code, response["Location"]) == (201, f"/api/loras/{adapter['id']}")
        assert staff.get(response["Location"]).json() == adapter
        assert (adapter["name"], adapter["architecture"], adapter["rank"], adapter["alpha"]) == (
            "zwx",
            "sd1",
            4,
            2.0,
        )
        assert (adapter["trigger_words"], adapter["owner"]) == (["zwx"], "ann")
        assert adapter["path"] == str(models_root() / "adapters" / f"{adapter['sha256']}.safetensors")
        assert AuditEntry.objects.filter(action="adapter.create", target_id=adapter["id"]).exists()

    def test_takes_what_is_said_about_it(self, staff, tmp_path):
        adapter = send(
            staff, tmp_path, name="Ink", description="In ink", trigger_words="zwx, ink drawing ,"
        ).json()

        assert (adapter["name"], adapter["description"]) == ("Ink", "In ink")
        assert adapter["trigger_words"] == ["zwx", "ink drawing"]

    def test_answers_200_with_the_adapter_that_has_the_same_bytes(self, staff, tmp_path):
        first, again = send(staff, tmp_path, name="first"), send(staff, tmp_path, name="second")

        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json() == first.json()

    @pytest.mark.parametrize(
        ("shapes", "code", "said"),
        [
            ({"x": (1,)}, "no_adapter", "no LoRA"),
            ({"lora_unet_x.hada_w1_a": (1, 1)}, "unsupported_adapter", "LoHa"),
            (
                {"lora_te_x.lora_down.weight": (1, 1), "lora_te_x.lora_up.weight": (1, 1)},
                "unsupported_adapter",
                "text",
            ),
        ],
    )
    def test_says_why_a_file_is_refused(self, staff, tmp_path, shapes, code, said):
        response = send(staff, tmp_path, file=file_of(write_header(tmp_path / "a", shapes)))

        [error] = response.json()["errors"]
        assert (response.status_code, error["pointer"], error["code"]) == (400, "/file", code)
        assert said in error["detail"]
        assert not Adapter.objects.exists()

    def test_takes_no_pickles_whatever_they_are_called(self, staff, tmp_path):
        pickled = SimpleUploadedFile("a.safetensors", b"\x80\x04\x95\x0c" + b"\0" * 40)

        response = send(staff, tmp_path, file=pickled)

        assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "damaged_weights")

    def test_nothing_stays_in_quarantine(self, staff, tmp_path):
        send(staff, tmp_path)
        send(staff, tmp_path, file=SimpleUploadedFile("a", b"bad"))

        folder = storage.path_of("staging")
        assert not folder.is_dir() or list(folder.iterdir()) == []

    def test_a_file_that_is_too_large_is_refused(self, staff, tmp_path, set_config):
        set_config(NO_LIMIT.replace("{storage", "{uploads: {max_adapter_bytes: 100}, storage"))

        response = send(staff, tmp_path)

        assert (response.status_code, response.json()["code"]) == (413, "too_large")

    def test_a_declared_length_beyond_the_limit_is_refused_unread(self, set_config):
        set_config(NO_LIMIT.replace("{storage", "{uploads: {max_adapter_bytes: 100}, storage"))
        client = Client()
        client.force_login(UserFactory(staff=True))

        response = client.post(
            "/api/loras",
            b"nothing of it",
            content_type="multipart/form-data; boundary=x",
            CONTENT_LENGTH=str(2**40),
        )

        assert (response.status_code, response.json()["code"]) == (413, "too_large")

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"colour": "red"}, "/colour"),
            ({"name": "x" * 201}, "/name"),
            ({"name": ["a", "b"]}, "/name"),
            ({"trigger_words": ",".join(f"w{n}" for n in range(21))}, "/trigger_words"),
            ({"owner": "bob"}, "/owner"),
        ],
    )
    def test_what_is_wrong_with_the_form_is_named(self, staff, tmp_path, fields, pointer):
        response = send(staff, tmp_path, **fields)

        assert response.status_code == 400
        assert response.json()["errors"][0]["pointer"].startswith(pointer)

    def test_a_form_without_a_file_or_with_two_is_refused(self, staff, tmp_path):
        file = file_of(write_sd1_adapter(tmp_path / "a"))

        none = staff.post("/api/loras", {"name": "a"}, format="multipart")
        two = staff.post("/api/loras", {"file": [file, file]}, format="multipart")
        elsewhere = staff.post("/api/loras", {"files": file}, format="multipart")
        json = staff.post("/api/loras", {"file": "x"}, format="json")

        assert [response.status_code for response in (none, two, elsewhere, json)] == [400, 400, 400, 415]
        assert two.json()["errors"][0]["pointer"] == "/file"

    def test_is_counted_as_an_upload_and_nothing_else_is(self, staff, tmp_path, set_config):
        set_config(NO_LIMIT.replace("limit: 0", "limit: 1"))
        adapter = AdapterFactory()

        assert send(staff, tmp_path, file=SimpleUploadedFile("a", b"bad")).status_code == 400  # given back
        assert send(staff, tmp_path).status_code == 201
        refused = send(staff, tmp_path, mark=1)

        assert (refused.status_code, refused["RateLimit-Limit"]) == (429, "1")
        assert staff.patch(f"/api/loras/{adapter.pk}", {"name": "b"}, format="json").status_code == 200

    def test_is_for_staff(self, public, tmp_path):
        client = APIClient()
        client.force_authenticate(UserFactory())

        assert (send(public, tmp_path).status_code, send(client, tmp_path).status_code) == (401, 403)


class TestList:
    def test_the_public_is_not_told_where_they_lie_or_whose_they_are(self, public, staff):
        AdapterFactory(name="Ink")
        hidden = AdapterFactory(is_enabled=False)

        [told] = public.get("/api/loras").json()["results"]

        assert told["name"] == "Ink"
        assert not STAFF_ONLY & told.keys()
        assert public.get(f"/api/loras/{hidden.pk}").status_code == 404
        assert len(staff.get("/api/loras").json()["results"]) == 2

    def test_is_filtered_by_family_words_and_the_model_it_fits(self, staff):
        ink = AdapterFactory(name="Ink drawings", description="of the sea")
        AdapterFactory(name="Ink", architecture="sdxl")
        BaseModel.objects.create(name="sd15", kind="hub", source="a/b", architecture="sd1")
        BaseModel.objects.create(name="off", kind="hub", source="a/b", architecture="sd1", is_enabled=False)

        def found(query):
            return [adapter["id"] for adapter in staff.get(f"/api/loras?{query}").json()["results"]]

        assert found("architecture=sd1") == found("q=ink+SEA") == found("base_model=sd15") == [str(ink.pk)]
        assert found("q=ink+sky") == found("base_model=nothing") == found("is_enabled=false") == []
        assert found("base_model=off") == [str(ink.pk)]

    def test_a_model_that_is_hidden_from_the_public_is_unknown_to_it(self, public):
        AdapterFactory()
        BaseModel.objects.create(name="off", kind="hub", source="a/b", architecture="sd1", is_enabled=False)

        assert public.get("/api/loras?base_model=off").json()["results"] == []

    def test_costs_the_same_however_many_there_are(self, staff, django_assert_max_num_queries):
        for _ in range(20):
            AdapterFactory(preview=ImageFactory(), owner=UserFactory())

        with django_assert_max_num_queries(3):
            assert len(staff.get("/api/loras").json()["results"]) == 20


class TestChange:
    def test_changes_what_it_names(self, staff):
        adapter = AdapterFactory(name="old", description="kept")

        body = {"name": "Ink", "trigger_words": ["zwx"], "default_weight": 0.8, "is_enabled": False}
        changed = staff.patch(f"/api/loras/{adapter.pk}", body, format="json").json()

        assert {name: changed[name] for name in body} == body
        assert changed["description"] == "kept"

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"default_weight": 2.5}, "/default_weight"),
            ({"trigger_words": "zwx"}, "/trigger_words"),
            ({"trigger_words": [1]}, "/trigger_words/0"),
            ({"source": "x"}, "/source"),
            ({"architecture": "sdxl"}, "/architecture"),
            ({"name": None}, "/name"),
        ],
    )
    def test_what_is_wrong_is_named(self, staff, body, pointer):
        response = staff.patch(f"/api/loras/{AdapterFactory().pk}", body, format="json")

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, pointer)

    def test_one_that_images_were_made_with_is_not_deleted(self, staff):
        used, unused = AdapterFactory(), AdapterFactory()
        ImageLora.objects.create(image=ImageFactory(), lora_id=str(used.pk))

        refused = staff.delete(f"/api/loras/{used.pk}")

        assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
        assert staff.delete(f"/api/loras/{unused.pk}").status_code == 204
        assert list(Adapter.objects.all()) == [used]


class TestPreview:
    def test_an_image_is_chosen_shown_and_taken_away(self, staff):
        adapter, image = AdapterFactory(), ImageFactory()
        path = f"/api/loras/{adapter.pk}/preview"

        assert staff.get(path).status_code == 404
        chosen = staff.post(path, {"image": str(image.pk)}, format="json").json()
        shown = staff.get(path)
        removed = staff.delete(path).json()

        assert (chosen["preview_url"], chosen["preview"]) == (path, str(image.pk))
        assert (shown.status_code, shown["Content-Type"]) == (200, "image/webp")
        assert (removed["preview_url"], Image.objects.count()) == (None, 1)

    @pytest.mark.parametrize(
        "values",
        [{}, {"visibility": Visibility.PUBLIC, "nsfw": Image.Nsfw.FLAGGED}],
    )
    def test_the_public_sees_no_image_that_is_not_for_it(self, public, staff, values):
        adapter = AdapterFactory(preview=ImageFactory(**values))
        path = f"/api/loras/{adapter.pk}/preview"

        assert public.get(path).status_code == 404
        assert public.get(f"/api/loras/{adapter.pk}").json()["preview_url"] is None
        assert staff.get(path).status_code == 200

    def test_the_public_sees_a_public_one(self, public):
        adapter = AdapterFactory(preview=ImageFactory(public=True))

        told = public.get(f"/api/loras/{adapter.pk}").json()

        assert public.get(told["preview_url"]).status_code == 200

    def test_of_a_disabled_adapter_nothing_is_shown(self, public):
        adapter = AdapterFactory(preview=ImageFactory(public=True), is_enabled=False)

        assert public.get(f"/api/loras/{adapter.pk}/preview").status_code == 404

    @pytest.mark.parametrize("image", ["no-id", None, "00000000-0000-0000-0000-000000000000"])
    def test_only_an_image_that_is_there_can_be_chosen(self, staff, image):
        response = staff.post(f"/api/loras/{AdapterFactory().pk}/preview", {"image": image}, format="json")

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/image")
