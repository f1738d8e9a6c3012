"""What the store promises, wherever its files are. Each test runs on the disk and in a bucket."""

import hashlib
import os
import time
from contextlib import suppress
from datetime import timedelta

import pytest

from imagehub import storage
from imagehub.storage import UnsafePath
from imagehub.tests.together import at_once

pytestmark = pytest.mark.usefixtures("anywhere")

DATA = b"the bytes of a picture"
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = f"images/{SHA256[:2]}/{SHA256}.png"


@pytest.fixture
def staged(tmp_path):
    path = tmp_path / "finished.png"
    path.write_bytes(DATA)
    return path


def read(name):
    with storage.open_file(name) as file:
        return file.read()


def names(area="images"):
    return [file.name for file in storage.walk(area)]


class TestStoring:
    def test_names_bytes_by_their_content(self):
        assert storage.store_bytes(DATA, suffix="png") == storage.StoredFile(NAME, SHA256, len(DATA))
        assert read(NAME) == DATA

    def test_takes_a_file_in(self, staged):
        assert storage.adopt_file(staged) == storage.StoredFile(NAME, SHA256, len(DATA))
        assert read(NAME) == DATA
        assert not staged.exists()

    def test_takes_the_suffix_it_is_given(self, staged):
        assert storage.adopt_file(staged, suffix="webp").name.endswith(f"{SHA256}.webp")

    def test_keeps_equal_content_once(self, staged):
        storage.store_bytes(DATA, suffix="png")
        storage.adopt_file(staged)
        storage.store_bytes(DATA, suffix="png")

        assert names() == [NAME]
        assert read(NAME) == DATA

    def test_keeps_equal_content_once_when_many_bring_it(self, tmp_path):
        files = [tmp_path / f"{number}.png" for number in range(8)]
        for file in files:
            file.write_bytes(DATA)

        stored = at_once(
            lambda number: (
                storage.adopt_file(files[number]) if number % 2 else storage.store_bytes(DATA, suffix="png")
            ),
            range(8),
        )

        assert {file.name for file in stored} == {NAME}
        assert names() == [NAME]
        assert read(NAME) == DATA

    def test_writes_again_what_was_cut_off_from_outside(self):
        storage.write_file(NAME, DATA[:5])

        storage.store_bytes(DATA, suffix="png")

        assert read(NAME) == DATA

    def test_takes_a_file_of_many_parts(self, tmp_path):
        data = os.urandom(9 << 20)  # beyond what S3 takes in one piece
        (tmp_path / "large.png").write_bytes(data)

        stored = storage.adopt_file(tmp_path / "large.png")

        assert storage.size(stored.name) == len(data)
        assert hashlib.sha256(read(stored.name)).hexdigest() == stored.sha256

    def test_takes_a_picture_without_a_byte(self):
        stored = storage.store_bytes(b"", suffix="png")

        assert storage.size(stored.name) == 0
        assert read(stored.name) == b""

    def test_writes_over_what_is_made_from_others(self):
        storage.write_file("thumbnails/150/ab/a.webp", b"old")
        storage.write_file("thumbnails/150/ab/a.webp", b"newer")

        assert read("thumbnails/150/ab/a.webp") == b"newer"

    @pytest.mark.parametrize("suffix", ["", "PNG", "../x", "p/g", ".png"])
    def test_refuses_an_odd_suffix(self, suffix):
        with pytest.raises(UnsafePath):
            storage.store_bytes(DATA, suffix=suffix)

    def test_refuses_a_symbolic_link(self, staged, tmp_path):
        link = tmp_path / "link.png"
        link.symlink_to(staged)

        with pytest.raises(UnsafePath):
            storage.adopt_file(link)

        assert staged.exists()
        assert names() == []

    def test_says_so_when_there_is_no_file_to_take(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            storage.adopt_file(tmp_path / "missing.png")


class TestReading:
    @pytest.fixture(autouse=True)
    def _stored(self, anywhere):
        storage.store_bytes(DATA, suffix="png")

    def test_knows_what_is_there(self):
        assert storage.exists(NAME)
        assert storage.size(NAME) == len(DATA)
        assert not storage.exists("images/ab/missing.png")
        assert not storage.exists("images")

    def test_opens_a_file_that_can_be_searched(self):
        with storage.open_file(NAME) as file:
            file.seek(4)
            assert file.read(5) == b"bytes"

    @pytest.mark.parametrize("wanted", [range(22), range(4, 9), range(21, 22), range(3, 3)])
    def test_reads_a_part(self, wanted):
        assert b"".join(storage.read_part(NAME, wanted)) == DATA[wanted.start : wanted.stop]

    def test_lends_a_path_and_leaves_nothing_behind(self):
        with storage.local_copy(NAME) as path:
            assert path.read_bytes() == DATA

        assert storage.exists(NAME)
        assert not list((storage.root() / "staging").glob("*"))

    @pytest.mark.parametrize(
        "action",
        [
            storage.open_file,
            storage.size,
            lambda name: storage.read_part(name, range(5)),
            lambda name: storage.local_copy(name).__enter__(),
        ],
    )
    def test_says_so_at_once_when_there_is_no_such_file(self, action):
        with pytest.raises(FileNotFoundError):
            action("images/ab/missing.png")

    def test_says_where_a_file_lies(self, anywhere):
        beginning = "s3://imagehub-test/test/" if anywhere == "bucket" else str(storage.root())

        assert storage.location_of(NAME).startswith(beginning)
        assert storage.location_of(NAME).endswith(NAME)

    def test_finds_nothing_wrong(self):
        assert storage.problem() == ""


class TestWalking:
    def test_yields_every_file_of_an_area(self):
        before = time.time()
        storage.store_bytes(DATA, suffix="png")
        storage.write_file("images/stray.png", b"stray")
        storage.write_file("imagesque/other.png", b"other")
        storage.write_file("thumbnails/150/ab/a.webp", b"thumbnail")

        found = {file.name: file for file in storage.walk("images")}

        assert set(found) == {NAME, "images/stray.png"}
        assert found[NAME].size_bytes == len(DATA)
        assert abs(found[NAME].modified_at - before) < 60
        assert names("thumbnails") == ["thumbnails/150/ab/a.webp"]

    def test_yields_nothing_from_an_empty_store(self):
        assert names() == []


def test_tells_which_of_many_are_missing():
    storage.store_bytes(DATA, suffix="png")

    assert storage.missing([NAME, "images/ab/missing.png", NAME]) == {"images/ab/missing.png"}
    assert storage.missing([]) == set()


class TestDeleting:
    def test_deletes_and_tells(self):
        storage.store_bytes(DATA, suffix="png")

        assert storage.delete(NAME) is True
        assert storage.delete(NAME) is False
        assert names() == []

    def test_spares_what_is_new(self):
        storage.store_bytes(DATA, suffix="png")

        assert storage.delete(NAME, untouched_for=timedelta(hours=1)) is False
        assert storage.exists(NAME)

    @pytest.mark.parametrize("again", ["stored", "adopted", "not"])
    def test_spares_what_was_brought_again(self, again, staged):
        storage.store_bytes(DATA, suffix="png")
        [first] = storage.walk("images")
        time.sleep(2.1)  # a bucket counts whole seconds

        if again == "stored":
            storage.store_bytes(DATA, suffix="png")
        elif again == "adopted":
            storage.adopt_file(staged)

        untouched_for = timedelta(seconds=time.time() - first.modified_at - 2)
        assert storage.delete(NAME, untouched_for=untouched_for) is (again == "not")

    def test_takes_nothing_from_whoever_brings_it_at_the_same_time(self):
        storage.store_bytes(DATA, suffix="png")

        def bring_or_delete(number):
            if number % 2:
                storage.delete(NAME, untouched_for=timedelta(seconds=5))
                return True
            storage.store_bytes(DATA, suffix="png")
            return storage.exists(NAME)

        assert all(at_once(bring_or_delete, range(8)))


@pytest.mark.parametrize(
    "name",
    ["", ".", "/etc/passwd", "../secret", "images/../../secret", "images\\..\\a.png", "images/a\0.png"],
)
def test_unsafe_names_lead_nowhere(name):
    for action in (
        storage.exists,
        storage.size,
        storage.open_file,
        storage.delete,
        lambda name: storage.write_file(name, DATA),
        lambda name: storage.read_part(name, range(5)),
        lambda name: storage.local_copy(name).__enter__(),
    ):
        with pytest.raises(UnsafePath):
            action(name)
    with suppress(UnsafePath):
        assert list(storage.walk(name)) == []
