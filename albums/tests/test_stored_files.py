import pytest

from albums.services.stored_files import originals_of_rows
from albums.tests.factories import ImageFactory
from imagehub.operations.file_kinds import Usage
from imagehub.operations.usage import usage_of_roots

pytestmark = pytest.mark.django_db


def test_a_file_that_several_images_share_counts_once(monkeypatch):
    first = ImageFactory(content=b"one")
    ImageFactory(content=b"one")
    other = ImageFactory(content=b"another")

    assert first.storage_name != other.storage_name
    assert originals_of_rows() == Usage(first.size_bytes + other.size_bytes, 2)

    monkeypatch.setattr("imagehub.storage.is_local", lambda: False)
    assert usage_of_roots()["bucket"] == {
        "originals": {"bytes": first.size_bytes + other.size_bytes, "files": 2}
    }


def test_of_no_images_there_is_nothing():
    assert originals_of_rows() == Usage(0, 0)
