"""Files on their way out: by ourselves, by nginx, and by the bucket."""

import os
import urllib.request
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.checks import run_checks

from albums.tests.factories import ImageFactory, picture
from albums.thumbnails import thumbnail_name, thumbnail_of
from imagehub import storage

pytestmark = pytest.mark.django_db

DATA = picture(size=(64, 48))


@pytest.fixture
def public():
    return ImageFactory(public=True, name="A red heart", content=DATA)


@pytest.fixture
def private():
    return ImageFactory(name="A blue heart", content=picture(color="blue"))


@pytest.fixture
def nginx(settings):
    settings.ACCEL_PREFIX = "/protected/"


@pytest.fixture
def proxied(bucket, settings):
    settings.S3_PROXY = True


def file(image):
    return f"/api/images/{image.pk}/file"


def thumbnail(image, query=""):
    return f"/api/images/{image.pk}/thumbnail{query}"


def content(response):
    return b"".join(response.streaming_content) if response.streaming else response.content


def fetched(url):
    with urllib.request.urlopen(url) as response:
        return response.headers, response.read()


class TestEveryFile:
    @pytest.mark.parametrize("path", [file, thumbnail])
    def test_can_do_nothing_in_a_browser(self, visitor, public, path):
        response = visitor.get(path(public), HTTP_ACCEPT="text/html")

        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Content-Security-Policy"].startswith("default-src 'none'")
        assert response["Content-Security-Policy"].endswith("sandbox")
        assert response["Content-Type"].startswith("image/")
        assert "\n" not in response["Content-Disposition"]

    def test_is_shown_by_pages_of_others_only_when_it_is_public(self, staff, public, private):
        assert staff.get(file(public))["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert staff.get(file(private))["Cross-Origin-Resource-Policy"] == "same-site"

    @pytest.mark.usefixtures("anywhere")
    @pytest.mark.parametrize("path", [file, thumbnail])
    def test_is_described_by_head(self, visitor, public, path):
        name = public.storage_name if path is file else thumbnail_of(public, 300)

        response = visitor.head(path(public))

        assert response.status_code == 200
        assert response["Content-Length"] == str(storage.size(name))
        assert response["ETag"].startswith(f'"{public.sha256}')
        assert content(response) == b""

    def test_is_sent_in_large_pieces(self, visitor):
        image = ImageFactory(public=True, content=os.urandom(1 << 20))

        pieces = [len(piece) for piece in visitor.get(file(image)).streaming_content]

        assert sum(pieces) == 1 << 20
        assert len(pieces) <= 4

    @pytest.mark.usefixtures("anywhere")
    def test_is_not_sent_to_whoever_has_it(self, visitor, public):
        response = visitor.get(file(public), HTTP_IF_NONE_MATCH=f'"{public.sha256}"')

        assert response.status_code == 304

    @pytest.mark.usefixtures("anywhere")
    @pytest.mark.parametrize("path", [file, thumbnail])
    @pytest.mark.parametrize("method", ["get", "head"])
    def test_of_a_private_image_is_unknown_to_visitors(self, visitor, private, path, method):
        response = getattr(visitor, method)(path(private), HTTP_IF_NONE_MATCH="*")

        assert response.status_code == 404
        assert not {"Location", "X-Accel-Redirect", "ETag"} & set(response.headers)


@pytest.mark.usefixtures("nginx")
class TestByNginx:
    def test_only_the_name_leaves_this_process(self, visitor, public):
        response = visitor.get(file(public))

        assert response["X-Accel-Redirect"] == f"/protected/{public.storage_name}"
        assert response.content == b""
        assert response["Content-Type"] == "image/png"
        assert response["Content-Disposition"] == 'inline; filename="A red heart.png"'
        assert response["Cache-Control"] == "public, max-age=3600"
        assert response["ETag"] == f'"{public.sha256}"'

    def test_a_thumbnail_is_made_first(self, visitor, public):
        response = visitor.get(thumbnail(public, "?size=150"))

        name = thumbnail_name(public.sha256, 150)
        assert response["X-Accel-Redirect"] == f"/protected/{name}"
        assert storage.exists(name)

    def test_a_name_is_quoted(self, visitor, public):
        storage.write_file("images/a b%2e?é\n.png", DATA)
        type(public).objects.update(storage_name="images/a b%2e?é\n.png")

        assert visitor.get(file(public))["X-Accel-Redirect"] == "/protected/images/a%20b%252e%3F%C3%A9%0A.png"

    @pytest.mark.parametrize("path", [file, thumbnail])
    def test_nothing_is_said_to_whoever_may_not_see_it(self, visitor, private, path):
        response = visitor.get(path(private))

        assert response.status_code == 404
        assert "X-Accel-Redirect" not in response

    def test_a_range_is_left_to_nginx(self, visitor, public):
        response = visitor.get(file(public), HTTP_RANGE="bytes=0-9")

        assert response.status_code == 200
        assert response["X-Accel-Redirect"]
        assert "Content-Range" not in response

    def test_who_has_it_is_told_so_without_nginx(self, visitor, public):
        response = visitor.get(file(public), HTTP_IF_NONE_MATCH=f'"{public.sha256}"')

        assert response.status_code == 304
        assert "X-Accel-Redirect" not in response

    def test_a_file_that_is_gone_is_not_found(self, visitor, public):
        storage.delete(public.storage_name)

        response = visitor.get(file(public))

        assert response.status_code == 404
        assert response["Content-Type"] == "application/problem+json"

    def test_a_bucket_is_not_on_its_disk(self, bucket, settings, visitor):
        settings.S3_PROXY = True
        public = ImageFactory(public=True, content=DATA)

        response = visitor.get(file(public))

        assert "X-Accel-Redirect" not in response
        assert content(response) == DATA


@pytest.mark.usefixtures("bucket")
class TestByTheBucket:
    def test_the_caller_is_sent_to_an_address_that_opens_the_file(self, visitor, public):
        response = visitor.get(file(public))

        assert response.status_code == 302
        assert response.content == b""
        headers, data = fetched(response["Location"])
        assert data == DATA
        assert headers["Content-Type"] == "image/png"
        assert headers["Content-Disposition"] == 'inline; filename="A red heart.png"'
        assert headers["Cache-Control"] == "public, max-age=3600"

    def test_a_thumbnail_is_made_first(self, visitor, public):
        response = visitor.get(thumbnail(public))

        headers, data = fetched(response["Location"])
        assert data[8:12] == b"WEBP"
        assert headers["Content-Type"] == "image/webp"

    def test_an_address_outlives_every_copy_of_the_answer(self, visitor, public):
        response = visitor.get(file(public))

        assert parse_qs(urlsplit(response["Location"]).query)["X-Amz-Expires"] == ["60"]
        assert response["Cache-Control"] == "public, max-age=30"

    def test_the_address_of_a_private_file_is_kept_by_nobody(self, staff, private):
        response = staff.get(file(private))

        assert response["Cache-Control"] == "private, no-store"
        assert "Cookie" in response["Vary"]
        assert fetched(response["Location"])[0]["Cache-Control"] == "private, no-cache"

    @pytest.mark.parametrize("path", [file, thumbnail])
    def test_nothing_is_said_to_whoever_may_not_see_it(self, visitor, private, path):
        response = visitor.get(path(private))

        assert response.status_code == 404
        assert "Location" not in response
        assert "X-Amz" not in response.content.decode()


@pytest.mark.usefixtures("proxied")
class TestThroughUs:
    def test_the_file_is_passed_on(self, visitor, public):
        response = visitor.get(file(public))

        assert response.status_code == 200
        assert content(response) == DATA
        assert response["Content-Length"] == str(len(DATA))
        assert response["Cache-Control"] == "public, max-age=3600"

    def test_a_part_is_passed_on(self, visitor, public):
        response = visitor.get(file(public), HTTP_RANGE="bytes=5-14")

        assert response.status_code == 206
        assert content(response) == DATA[5:15]
        assert response["Content-Range"] == f"bytes 5-14/{len(DATA)}"

    def test_there_is_nothing_behind_the_end(self, visitor, public):
        assert visitor.get(file(public), HTTP_RANGE="bytes=99999-").status_code == 416

    def test_a_file_that_is_gone_is_not_found(self, visitor, public):
        storage.delete(public.storage_name)

        assert visitor.get(file(public)).status_code == 404


class TestSizes:
    def test_only_those_that_exist_are_made(self, visitor, public):
        wrong = [99_999, -1, 0, "abc", "", "1e2", "150.5", "150,300", *range(1000, 1040)]

        answers = {
            visitor.get(thumbnail(public, f"?size={size}")).status_code for size in wrong if size != ""
        }

        assert answers == {400}
        assert list(storage.walk("thumbnails")) == []

    @pytest.mark.parametrize("query", ["?fmt=svg", "?w=99999", "?w=-1", "?size=150&size=300x"])
    def test_nothing_else_can_be_asked_for(self, visitor, public, query):
        assert visitor.get(thumbnail(public, query)).status_code == 400


class TestOutsideTheApi:
    """No address of ours leads to a stored file but by its image: there is no media URL, and static files are static."""

    def test_nothing_is_found(self, client, public):
        unknown = client.get("/no/such/page")
        paths = [
            f"/media/{public.storage_name}",
            f"/{public.storage_name}",
            f"/protected/{public.storage_name}",
            *(
                "/media/..%2f..%2fsettings.py",
                "/media/%2e%2e/%2e%2e/manage.py",
                "/media/....//....//manage.py",
            ),
            *("/media/%252e%252e/manage.py", "/media//etc/passwd", "/..%2f..%2fetc%2fpasswd"),
        ]

        for path in paths:
            response = client.get(path)
            assert (path, response.status_code, response.content) == (path, 404, unknown.content)

    def test_static_files_lead_nowhere_else(self, client, public, settings):
        assert storage.root().parent == settings.VAR_DIR
        for path in (
            f"/static/../media/{public.storage_name}",
            f"/static/%2e%2e/media/{public.storage_name}",
            f"/static/..%2fmedia%2f{public.storage_name}",
            f"/static/%252e%252e/media/{public.storage_name}",
            f"/static//{storage.path_of(public.storage_name)}",
            "/static/..%2f..%2fsettings.py",
        ):
            assert client.get(path).status_code == 404

    @pytest.mark.parametrize(
        "path", ["file/..%2f..%2f..%2fmanage.py", "file%2f..", "thumbnail/../../manage.py", "%2e%2e/file"]
    )
    def test_an_image_leads_to_its_own_file_only(self, visitor, public, path):
        response = visitor.get(f"/api/images/{public.pk}/{path}")

        assert response.status_code == 404
        assert response["Content-Type"] == "application/problem+json"

    @pytest.mark.parametrize(("media", "is_wrong"), [("static/media", True), (".", True), ("media", False)])
    def test_the_media_root_lies_outside_of_what_is_static(self, settings, tmp_path, media, is_wrong):
        settings.STATIC_ROOT = tmp_path / "static"
        settings.NAMED_ROOTS = {"media": str(tmp_path / media)}

        assert ("imagehub.E002" in {problem.id for problem in run_checks()}) is is_wrong
