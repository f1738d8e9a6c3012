"""``POST /api/images/upload`` over HTTP: the form, the answers, and what is left when something goes wrong.

The rows of the upload checklist (``research/scraping_gallery_security.md`` 3.3) that are about single pictures (U1-U12,
U17, U18) are tested in ``albums/tests/decoding``. Tested in another way than the table has it, because the design says so:
equal bytes answer 201 for every call (U27), a type mismatch is 415 (U23), an unknown field 400 (U43). Left out:

- U16, U34-U38: GIF and ZIP are not taken at all; their bytes are 415 like those of every other format.
- U25: there is no media host of its own yet. U29: no storage quota. U39, U40: no resumable upload.
- U45: sizes of thumbnails are tested where they are served. U46: there are no share pages yet.

Races and killed processes are in ``test_upload_races.py``, the web server's part in ``test_upload_server.py``.
"""

import io
import os
import signal
import uuid
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DatabaseError
from django.test import Client
from rest_framework.test import APIClient

from albums import decoding
from albums.models import Album, Image, ImageText, Visibility
from albums.services import uploads
from albums.services.file_names import safe_file_name, title_of
from albums.tests.factories import AlbumFactory, picture, stored_files
from albums.thumbnails import default_size, thumbnail_name
from imagehub import storage
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.config import get_config

pytestmark = pytest.mark.django_db

PATH = "/api/images/upload"
BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def file(name="heart.png", content=None, content_type="image/png"):
    return SimpleUploadedFile(name, picture() if content is None else content, content_type)


def jpeg(**options):
    return picture(file_format="JPEG", **options)


def part(name, content, *, file_name=None, content_type=None):
    """Return a part of a form as it is sent, so that a file may be called anything."""
    named = b"" if file_name is None else b'; filename="' + file_name.encode() + b'"'
    kind = b"" if content_type is None else b"Content-Type: " + content_type.encode() + b"\r\n"
    head = (
        b"--"
        + BOUNDARY.encode()
        + b'\r\nContent-Disposition: form-data; name="'
        + name.encode()
        + b'"'
        + named
    )
    return head + b"\r\n" + kind + b"\r\n" + content + b"\r\n"


def form(*parts):
    return b"".join(parts) + b"--" + BOUNDARY.encode() + b"--\r\n"


def staged():
    folder = storage.path_of("staging")
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


class Unreadable(io.RawIOBase):
    """A body that nobody may touch."""

    def read(self, *_):
        raise AssertionError("The body was read.")


@pytest.fixture(autouse=True)
def _no_limit(set_config):
    set_config("{storage: {minimum_free_bytes: 0}, rate_limits: {upload: {limit: 0, window_seconds: 60}}}")


@pytest.fixture
def owner():
    return UserFactory(staff=True)


@pytest.fixture
def staff(owner):
    client = APIClient()
    client.force_authenticate(owner)
    return client


@pytest.fixture
def upload(staff):
    def send(*files, query="", **fields):
        return staff.post(f"{PATH}{query}", {"files": list(files), **fields}, format="multipart")

    return send


@pytest.fixture(autouse=True)
def _nothing_stays_in_quarantine():
    yield
    assert staged() == []


class TestStoring:
    def test_a_picture_becomes_an_image_of_the_caller(self, upload, owner):
        response = upload(file("red heart.png"))

        assert response.status_code == 201
        [result] = response.json()["results"]
        assert result["name"] == "red heart.png"
        assert result["image"]["visibility"] == "private"
        assert result["image"]["source"] == {"kind": "upload", "id": None}
        assert result["image"]["original_name"] == "red heart.png"
        image = Image.objects.get(pk=result["image"]["id"])
        assert (image.owner, image.name, image.width, image.height) == (owner, "red heart", 8, 8)
        assert storage.path_of(image.storage_name).stat().st_size == image.size_bytes
        assert "red heart" in ImageText.objects.get(image=image).document

    def test_the_thumbnail_that_lists_show_is_there_at_once(self, upload):
        size = default_size()
        large = file(content=picture(size=(size + 1, size + 1)))

        image = upload(large).json()["results"][0]["image"]

        sha256 = Image.objects.get(pk=image["id"]).sha256
        assert storage.path_of(thumbnail_name(sha256, size)).is_file()

    def test_the_answers_come_in_the_order_of_the_files(self, upload):
        names = [f"{number}.png" for number in (3, 1, 2)]

        response = upload(*map(file, names), file("no.png", b"no picture"), file("0.png"))

        results = response.json()["results"]
        assert response.status_code == 201
        assert [result["name"] for result in results] == [*names, "no.png", "0.png"]
        assert [*results[3]] == ["name", "error"]
        assert results[3]["error"]["code"] == "unsupported_media_type"

    def test_an_album_gets_them_in_that_order(self, upload):
        album = AlbumFactory()

        results = upload(file("b.png"), file("a.png"), album=str(album.pk), visibility="public").json()[
            "results"
        ]

        album.refresh_from_db()
        places = album.memberships.in_order().values_list("image_id", flat=True)
        assert [str(pk) for pk in places] == [result["image"]["id"] for result in results]
        assert (album.total_images, album.public_images) == (2, 2)

    def test_the_same_bytes_under_the_same_name_are_two_images_and_one_file(self, upload):
        response = upload(file(), file())

        assert response.status_code == 201
        assert Image.objects.count() == 2
        assert len(stored_files()) == 1

    def test_each_image_has_an_entry_in_the_audit_trail(self, upload, owner):
        response = upload(file("a.png"), file("b.png"))

        entries = AuditEntry.objects.filter(request_id=response["X-Request-ID"], action="image.create")
        assert {entry.target_id for entry in entries} == {str(image.pk) for image in Image.objects.all()}
        assert {entry.actor for entry in entries} == {owner}
        assert entries[0].after["visibility"] == "private"

    def test_more_files_cost_no_more_queries(self, upload, django_assert_max_num_queries):
        album = AlbumFactory()
        upload(file())  # whatever is asked for once

        with django_assert_max_num_queries(25):
            assert upload(*(file() for _ in range(2)), album=str(album.pk)).status_code == 201
        with django_assert_max_num_queries(25):
            assert upload(*(file() for _ in range(12)), album=str(album.pk)).status_code == 201


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "content", "content_type", "status", "code"),
        [
            ("a.png", b"GIF89a/*", "image/png", 415, "unsupported_media_type"),
            ("a.zip", b"PK\x03\x04", "application/zip", 415, "unsupported_media_type"),
            ("a.jpg", picture(), "image/jpeg", 415, "type_mismatch"),  # U23
            ("a.gif", picture(), "image/png", 415, "unsupported_media_type"),
            ("a.png", picture(), "text/html", 415, "unsupported_media_type"),
            ("a.png", b"", "image/png", 415, "empty_file"),
            ("a.png", picture()[:-30], "image/png", 422, "unreadable_picture"),
        ],
    )
    def test_a_request_that_stores_nothing_fails_as_its_first_file_did(
        self, upload, name, content, content_type, status, code
    ):
        response = upload(file(name, content, content_type), file("b.png", b"nothing"))

        problem = response.json()
        assert response["Content-Type"] == "application/problem+json"
        assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
        assert problem["results"][0] == {"name": name, "error": {"code": code, "detail": problem["detail"]}}
        assert not Image.objects.exists()
        assert stored_files() == []

    def test_all_or_nothing(self, upload):
        response = upload(
            file("a.png"), file("b.png", picture()[:-30]), file("c.png", b"no"), query="?atomic=1"
        )

        assert response.status_code == 422
        codes = [result["error"]["code"] for result in response.json()["results"]]
        assert codes == ["not_stored", "unreadable_picture", "unsupported_media_type"]
        assert not Image.objects.exists()
        assert stored_files() == []

    def test_all(self, upload):
        assert upload(file("a.png"), file("b.png"), query="?atomic=1").status_code == 201
        assert Image.objects.count() == 2

    def test_a_file_that_is_too_large_does_not_hinder_the_others(self, upload, set_config):
        small, large = picture(), picture(size=(400, 400), color="blue")
        set_config(
            f"{{storage: {{minimum_free_bytes: 0}}, uploads: {{max_file_bytes: {len(small)}}},"
            " rate_limits: {upload: {limit: 0, window_seconds: 60}}}"
        )

        response = upload(file("large.png", large), file("small.png", small))

        assert response.status_code == 201
        refused, stored = response.json()["results"]
        assert refused["error"]["code"] == "too_large"
        assert "image" in stored
        assert upload(file("large.png", large)).status_code == 413

    @pytest.mark.parametrize("query", ["?atomic=yes", "?atomic=1&colour=red", "?album=1"])
    def test_other_parameters(self, upload, query):
        assert upload(file(), query=query).status_code == 400
        assert not Image.objects.exists()

    def test_an_album_that_is_deleted_in_the_meantime(self, upload, monkeypatch):
        album = AlbumFactory()

        def vet(*args, **options):
            Album.objects.all().delete()
            return decoding.vet(*args, **options)

        monkeypatch.setattr(uploads, "vet", vet)

        response = upload(file(), album=str(album.pk))

        assert (response.status_code, response.json()["code"]) == (409, "album_gone")
        assert not Image.objects.exists()

    def test_a_request_that_cannot_ask_for_thumbnails_stores_nothing(self, upload, staff, monkeypatch):
        def fail(ids):
            raise DatabaseError

        monkeypatch.setattr(uploads, "request_derivatives", fail)
        staff.raise_request_exception = False

        assert upload(file()).status_code == 500
        assert not Image.objects.exists()

    def test_a_disk_that_is_full(self, upload, set_config):
        set_config("storage: {minimum_free_bytes: 1000000000000000}")

        response = upload(file())

        assert (response.status_code, response.json()["code"]) == (422, "disk_full")
        assert not Image.objects.exists()

    def test_a_decoder_that_dies_costs_one_picture_and_nothing_else(self, upload, monkeypatch):  # U44
        decoder_class = decoding.pool.Decoder
        run, answer, killed = decoder_class.run, decoder_class._answer, set()

        def die_over_it(decoder, seconds):
            killed.add(decoder.pid)
            decoder._process.kill()
            return answer(decoder, seconds)

        def run_frozen(decoder, *args):
            if not decoder._is_ready:
                decoder._become_ready()
            os.kill(decoder.pid, signal.SIGSTOP)  # or it might be faster than its death
            with monkeypatch.context() as patch:
                patch.setattr(decoder_class, "_answer", die_over_it)
                return run(decoder, *args)

        with monkeypatch.context() as patch:
            patch.setattr(decoder_class, "run", run_frozen)
            crashed = upload(file())

        assert (crashed.status_code, crashed.json()["code"]) == (422, "decoder_crashed")
        assert upload(file()).status_code == 201
        assert len(killed) == 1
        assert not killed & decoding.pool.decoders(get_config().uploads).pids


class TestForm:
    def wrong(self, response):
        assert response.status_code == 400, response.content
        assert not Image.objects.exists()
        return {error["pointer"]: error["code"] for error in response.json()["errors"]}

    def test_needs_a_file(self, upload, staff):
        assert self.wrong(upload()) == {"/files": "required"}
        assert self.wrong(staff.post(PATH, {"files": "text"}, format="multipart")) == {"/files/0": "invalid"}
        assert self.wrong(staff.generic("POST", PATH, b"", content_type=FORM)) == {"/files": "required"}

    def test_a_field_without_a_chosen_file_is_none(self, staff):
        body = form(part("files", b"", file_name="", content_type="application/octet-stream"))

        assert self.wrong(staff.generic("POST", PATH, body, content_type=FORM)) == {"/files/0": "invalid"}

    def test_takes_no_other_fields(self, upload):  # U43
        fields = {"owner": "1", "is_public": "true", "sha256": "0" * 64, "path": "/etc/passwd"}

        assert self.wrong(upload(file(), **fields)) == {f"/{name}": "unknown_field" for name in fields}

    def test_takes_no_files_under_other_names(self, upload):
        assert self.wrong(upload(file(), more=file())) == {"/more": "unknown_field"}
        assert self.wrong(upload(file(), album=file())) == {"/album": "incorrect_type"}

    def test_takes_a_field_once(self, upload):
        assert self.wrong(upload(file(), visibility=["public", "private"])) == {"/visibility": "repeated"}

    def test_an_album_that_is_unknown(self, upload):  # U41: staff may see every album there is
        assert self.wrong(upload(file(), album=str(uuid.uuid4()))) == {"/album": "does_not_exist"}
        assert self.wrong(upload(file(), album="holidays")) == {"/album": "invalid"}
        assert self.wrong(upload(file(), visibility="secret")) == {"/visibility": "invalid_choice"}

    def test_too_many_files(self, staff):  # U32
        body = form(*(part("files", b"x", file_name="a.png") for _ in range(101)))

        response = staff.generic("POST", PATH, body, content_type=FORM)

        assert self.wrong(response) == {"/files": "too_many_files"}

    @pytest.mark.parametrize(
        "parts",
        [
            [part("x", b"", file_name="a.png")] * 5000,
            [part(f"x{number}", b"") for number in range(100_000)],
        ],
        ids=["files", "fields"],
    )
    def test_a_flood_of_parts(self, staff, parts):  # U32
        response = staff.generic("POST", PATH, form(*parts), content_type=FORM)

        assert response.status_code == 400

    def test_a_field_that_is_too_long(self, staff):
        body = form(part("visibility", b"x" * 3_000_000))

        assert staff.generic("POST", PATH, body, content_type=FORM).status_code == 413

    def test_a_body_that_ends_early(self, staff):
        body = form(part("files", picture(), file_name="a.png"))[:-40]

        response = staff.generic("POST", PATH, body, content_type=FORM)

        assert response.status_code == 400
        assert not Image.objects.exists()

    @pytest.mark.parametrize(
        ("content_type", "status"),
        [
            ("application/json", 415),
            ("application/x-www-form-urlencoded", 415),
            ("multipart/mixed; boundary=x", 415),
            ("image/png", 415),
            ("multipart/form-data", 400),
        ],
    )
    def test_anything_but_a_form(self, staff, content_type, status):
        assert staff.generic("POST", PATH, b"{}", content_type=content_type).status_code == status


class TestUnread:
    """Refusals that need no body never look at one."""

    def send(self, client, length=1000, **extra):
        extra = {"wsgi.input": Unreadable(), "CONTENT_LENGTH": str(length), **extra}
        return client.generic("POST", PATH, b"", content_type=FORM, **extra)

    def test_by_whom_it_comes(self):
        visitor = APIClient()
        assert self.send(visitor).status_code == 401
        visitor.force_authenticate(UserFactory())
        assert self.send(visitor).status_code == 403

    def test_by_its_declared_length(self, staff):  # U30
        response = self.send(staff, length=10 * 1024**3)

        assert (response.status_code, response.json()["code"]) == (413, "too_large")

    def test_by_how_many_came_before(self, staff, upload, set_config):
        set_config(
            "{storage: {minimum_free_bytes: 0}, rate_limits: {upload: {limit: 2, window_seconds: 60}}}"
        )
        assert upload(file("a.png", b"refused, so not counted")).status_code == 415
        assert upload(file()).status_code == 201
        second = upload(file())
        assert (second.status_code, second["RateLimit-Remaining"]) == (201, "0")

        response = self.send(staff)

        assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
        assert 0 < int(response["Retry-After"]) <= 60

    def test_by_how_many_come_now(self, staff, upload, set_config, monkeypatch):
        set_config(
            "{storage: {minimum_free_bytes: 0}, uploads: {at_once: 1},"
            " rate_limits: {upload: {limit: 0, window_seconds: 60}}}"
        )
        during = []

        def vet(*args, **options):
            during.append(self.send(staff))
            return decoding.vet(*args, **options)

        monkeypatch.setattr(uploads, "vet", vet)

        assert upload(file()).status_code == 201
        assert [(response.status_code, response.json()["code"]) for response in during] == [
            (429, "concurrency_limit")
        ]

    def test_by_a_forged_session(self, owner):  # U42
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(owner)

        response = self.send(browser)

        assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")

    def test_a_token_within_the_form_is_not_looked_for(self, owner):  # U42
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(owner)
        token = browser.get("/admin/").cookies["csrftoken"].value

        refused = browser.post(PATH, {"files": file(), "csrfmiddlewaretoken": token})
        accepted = browser.post(PATH, {"files": file()}, headers={"X-CSRFToken": token})

        assert refused.status_code == 403
        assert accepted.status_code == 201


class TestNames:
    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ("../../evil.png", "evil.png"),
            (r"..\\evil.png", "evil.png"),
            ("/abs.png", "abs.png"),
            ("c:/x/y.png", "y.png"),
            ("%2e%2e%2fx.png", "%2e%2e%2fx.png"),
            ("a\0.png", "a.png"),
            ("re\u202egnp.png", "regnp.png"),
            ("CON.png", "CON.png"),
            ("a.php.png", "a.php.png"),  # U22
            ("x" * 300 + ".png", "x" * 251 + ".png"),
        ],
    )
    def test_a_name_is_data_and_leads_nowhere(self, staff, sent, kept):  # U20
        body = form(part("files", picture(), file_name=sent, content_type="image/png"))

        response = staff.generic("POST", PATH, body, content_type=FORM)

        assert response.status_code == 201, response.content
        [result] = response.json()["results"]
        assert result["name"] == result["image"]["original_name"] == kept
        [name] = stored_files()
        assert name == f"images/{Image.objects.get().sha256[:2]}/{Image.objects.get().sha256}.png"

    @pytest.mark.parametrize(
        "name", [".htaccess", "a.png.php", "a.png%00.php", "a.png;.php", "png", "..", "/"]
    )
    def test_a_name_without_one_of_our_endings(self, staff, name):  # U22
        body = form(part("files", picture(), file_name=name, content_type="image/png"))

        assert staff.generic("POST", PATH, body, content_type=FORM).status_code == 415

    @pytest.mark.parametrize(
        "name",
        [
            "IMG_20260331_101500.jpg", "PXL_20260331_101500123.jpg", "Screenshot_2026-03-31-10-15-00.png",
            "Screenshot 2026-03-31 at 10.15.00.png", "DSC01234.JPG", "DSCN0001.jpg", "IMG_1234.jpeg", "_MG_0042.jpg",
            "P1010101.jpg", "20260331_101500.jpg", "WhatsApp Image 2026-03-31 at 10.15.00 (1).jpeg", "31.03.2026.png",
            "FB_IMG_1584812345678.jpg", "1584812345.png", "IMG-20260331-WA0001.jpg", "IMG_1234 copy.jpg", ".png",
            "240501_101112.jpg", "2024-5-1.jpg", "24-05-01 10.11.jpg", "01052024.jpg", "1 May 2024.jpg", "2024-May-01.jpg",
            "March 2024.jpg", "_MG_1234-Edit.jpg", "IMG_1234 copy 2.jpg", "IMG_1234_iPhone.jpg",
            "iPhone 15 Pro IMG_0001.jpg", "MVI_1234.jpg", "CAM00123.jpg", "100_1234.jpg", "R0001234.jpg", "L1001234.jpg",
            "Canon EOS R5 012345.jpg",
        ],
    )  # fmt: skip
    def test_the_public_learns_no_date_from_a_name(self, name):  # U19
        assert title_of(safe_file_name(name)) == "Untitled"

    @pytest.mark.parametrize(
        ("name", "title"),
        [
            ("red heart.png", "red heart"),
            ("photo of a cat.jpg", "photo of a cat"),
            ("card-07_queen.webp", "card-07_queen"),
            ("00012.png", "00012"),
            ("v1.2 final.png", "v1.2 final"),
            ("image 12.png", "image 12"),
            ("3 marbles 12.png", "3 marbles 12"),
            ("maybe 4.png", "maybe 4"),
            ("card 1024x1024.png", "card 1024x1024"),
            ("seed 1234567.png", "seed 1234567"),
        ],
    )
    def test_other_names_are_kept(self, name, title):
        assert title_of(safe_file_name(name)) == title

    def test_the_name_of_the_file_stays_with_staff(self, upload, client):  # U19
        upload(file("IMG_20260331_101500.jpg", jpeg(), "image/jpeg"), visibility="public")

        listed = client.get("/api/images").content.decode()
        served = client.get(Image.objects.get().pk and f"/api/images/{Image.objects.get().pk}/file")

        assert "20260331" not in listed
        assert "original_name" not in listed
        assert "20260331" not in served["Content-Disposition"]


def zip_of(name):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, "x")
    return target.getvalue()


class TestPolyglots:
    """Files that are a picture and something else: what is served is a picture and nothing else."""

    @pytest.mark.parametrize(
        ("content", "trace"),
        [
            (jpeg() + b"<script>alert(1)</script>", b"<script"),  # U13
            (jpeg(comment=b"<?php system($_GET[0]);"), b"<?php"),  # U14
            (jpeg() + zip_of("a.class"), b"PK\x03\x04"),  # U15
        ],
        ids=["HTML", "PHP", "ZIP"],
    )
    def test_only_the_picture_is_served(self, upload, client, content, trace):
        response = upload(file("a.jpg", content, "image/jpeg"), visibility="public")

        assert response.status_code == 201
        pk = response.json()["results"][0]["image"]["id"]
        assert trace in content
        for path in ("file", "thumbnail?size=150", "thumbnail?size=600"):
            served = client.get(f"/api/images/{pk}/{path}", headers={"Accept": "text/html"})  # U24
            assert served.status_code == 200
            assert served["Content-Type"].startswith("image/")
            assert served["X-Content-Type-Options"] == "nosniff"
            assert trace not in b"".join(served.streaming_content)

    def test_one_that_calls_itself_a_page_is_refused(self, upload):  # U13
        content = jpeg() + b"<script>alert(1)</script>"

        assert upload(file("a.jpg", content, "text/html")).status_code == 415
        assert upload(file("a.html", content, "image/jpeg")).status_code == 415


class TestReading:
    @pytest.mark.parametrize(
        "path",
        [
            "/media/..%2f..%2fsettings.py", "/media/....//settings.py", "/media/%252e%252e/settings.py",
            "/media//etc/passwd", "/static/..%2f..%2fimagehub/settings.py", "/static/../../manage.py",
        ],
    )  # fmt: skip
    def test_no_path_leads_out_of_anything(self, client, path):  # U21
        answers = [client.get(path), client.get("/media/nothing")]

        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content == answers[1].content

    def test_stored_files_lie_outside_of_what_is_served_as_it_is(self, upload, client):  # U26
        upload(file(), visibility="public")
        [name] = stored_files()

        for prefix in ("/", "/media/", "/static/", "/static/../", f"{storage.root()}/"):
            assert client.get(f"{prefix}{name}").status_code == 404


def test_the_default_of_a_picture_is_private(upload):
    assert upload(file()).json()["results"][0]["image"]["visibility"] == Visibility.PRIVATE
