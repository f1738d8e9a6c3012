"""What is a bucket's own: its addresses, and its failures."""

import socket
import urllib.request
from datetime import timedelta
from threading import Barrier
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from imagehub import storage
from imagehub.security_headers import bucket_origins
from imagehub.storage import StorageUnreachable
from imagehub.storage.bucket import Bucket
from imagehub.tests.storage import s3_server

DATA = b"the bytes of a picture"
ANSWER = {
    "content_type": "image/png",
    "disposition": 'inline; filename="a red heart.png"',
    "cache_control": "private, no-cache",
}


def change(settings, **options):
    """Say something else of the bucket."""
    media = settings.STORAGES["media"]
    settings.STORAGES = settings.STORAGES | {"media": media | {"OPTIONS": media["OPTIONS"] | options}}


@pytest.fixture
def name(bucket):
    return storage.store_bytes(DATA, suffix="png").name


class TestSignedUrl:
    def test_opens_the_file_with_our_headers(self, name):
        with urllib.request.urlopen(storage.signed_url(name, **ANSWER)) as response:
            assert response.read() == DATA
            assert response.headers["Content-Type"] == "image/png"
            assert response.headers["Content-Disposition"] == ANSWER["disposition"]
            assert response.headers["Cache-Control"] == "private, no-cache"

    def test_holds_for_as_long_as_the_settings_say_and_holds_no_secret(self, name):
        url = storage.signed_url(name, **ANSWER)

        assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["60"]
        assert "test-secret" not in url

    def test_names_the_host_that_browsers_know(self, name, settings):
        change(settings, public_endpoint="https://files.example.net")

        url = storage.signed_url(name, **ANSWER)

        assert url.startswith("https://files.example.net/imagehub-test/test/")
        assert storage.exists(name)

    def test_is_none_where_the_bucket_is_not_for_browsers(self, name, settings):
        settings.S3_PROXY = True

        assert storage.signed_url(name, **ANSWER) is None

    @pytest.mark.django_db
    def test_is_none_on_the_disk(self):
        assert storage.signed_url("images/ab/a.png", **ANSWER) is None


@pytest.mark.parametrize(
    ("options", "origins"),
    [
        ({}, ["https://pictures.s3.amazonaws.com", "https://pictures.s3.eu-west-1.amazonaws.com"]),
        ({"endpoint_url": "http://minio:9000/"}, ["http://minio:9000"]),
        (
            {"endpoint_url": "http://minio:9000", "public_endpoint": "https://files.example.net"},
            ["https://files.example.net"],
        ),
    ],
)
def test_pages_may_show_what_addresses_lead_to(options, origins):
    nothing = {
        "bucket_name": "pictures",
        "region_name": "eu-west-1",
        "endpoint_url": None,
        "public_endpoint": "",
    }

    assert bucket_origins(nothing | options) == origins


def test_is_asked_for_many_files_at_once_and_for_each_once(bucket, monkeypatch):
    together = Barrier(3)
    monkeypatch.setattr(Bucket, "exists", lambda self, name: together.wait(5) >= 0)

    assert storage.missing(["images/a.png", "images/b.png", "images/c.png", "images/a.png"]) == set()


class TestDeleting:
    def test_spares_what_may_be_younger_than_its_whole_seconds_say(self, name):
        assert storage.delete(name, untouched_for=timedelta(milliseconds=1)) is False
        assert storage.exists(name)


class TestFailures:
    @pytest.fixture
    def nobody_there(self, bucket, settings):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        change(settings, endpoint_url=f"http://127.0.0.1:{port}")

    def test_have_a_name_when_nobody_answers(self, nobody_there, tmp_path):
        (tmp_path / "finished.png").write_bytes(DATA)

        with pytest.raises(StorageUnreachable):
            storage.adopt_file(tmp_path / "finished.png")

        assert (tmp_path / "finished.png").exists()
        assert storage.problem() == "The bucket cannot be reached."

    def test_have_a_name_when_the_bucket_is_another(self, bucket, settings):
        change(settings, bucket_name="somebody-elses")

        assert storage.problem() == "The bucket cannot be reached."

    def test_do_not_stop_a_machine_whose_disk_is_full_from_saying_so(self, bucket, set_config):
        set_config("storage: {minimum_free_bytes: 1000000000000000}")

        assert "disk is full" in storage.problem()


def test_files_are_nobodys_but_ours(name, bucket):
    access = boto3.client(
        "s3",
        endpoint_url=urlsplit(storage.signed_url(name, **ANSWER))._replace(path="", query="").geturl(),
        region_name=s3_server.REGION,
        aws_access_key_id=s3_server.KEY,
        aws_secret_access_key=s3_server.SECRET,
    ).get_object_acl(Bucket=s3_server.BUCKET, Key=f"{bucket}/{name}")

    assert all("URI" not in grant["Grantee"] for grant in access["Grants"])
