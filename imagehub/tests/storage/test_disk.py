"""What is the disk's own. What every place promises is in ``test_contract``."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from imagehub import storage
from imagehub.storage import StorageFull, UnsafePath
from imagehub.tests.together import at_once

DATA = b"the bytes of a picture"
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = f"images/{SHA256[:2]}/{SHA256}.png"


@pytest.fixture
def staged(tmp_path):
    path = tmp_path / "finished.png"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def full_disk(monkeypatch):
    """Let every write reach the end of the disk."""

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


def stored_files():
    return [file.name for file in storage.walk("images")]


class TestStoreBytes:
    def test_names_the_file_by_its_content(self):
        stored = storage.store_bytes(DATA, suffix="png")

        assert stored == storage.StoredFile(NAME, SHA256, len(DATA))
        assert storage.path_of(NAME).read_bytes() == DATA

    def test_keeps_equal_bytes_once_when_twenty_threads_bring_them(self):
        stored = at_once(lambda _: storage.store_bytes(DATA, suffix="png"), range(20))

        assert {file.name for file in stored} == {NAME}
        assert stored_files() == [NAME]
        assert storage.path_of(NAME).read_bytes() == DATA

    def test_follows_the_media_root_of_the_moment(self, settings, tmp_path):
        settings.NAMED_ROOTS = {"media": tmp_path / "elsewhere"}

        storage.store_bytes(DATA, suffix="png")

        assert (tmp_path / "elsewhere" / NAME).is_file()


class TestAdoptFile:
    def test_moves_the_file_in(self, staged):
        stored = storage.adopt_file(staged)

        assert stored == storage.StoredFile(NAME, SHA256, len(DATA))
        assert storage.path_of(NAME).read_bytes() == DATA
        assert not staged.exists()

    def test_renames_where_it_can(self, staged):
        inode = staged.stat().st_ino

        storage.adopt_file(staged)

        assert storage.path_of(NAME).stat().st_ino == inode

    def test_copies_from_another_file_system(self, staged, monkeypatch):
        rename = Path.replace

        def replace(self, target):
            if self == staged:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            return rename(self, target)

        monkeypatch.setattr(Path, "replace", replace)

        storage.adopt_file(staged)

        assert storage.path_of(NAME).read_bytes() == DATA
        assert stored_files() == [NAME]
        assert not staged.exists()

    def test_makes_a_private_file_readable_for_the_web_server(self, staged):
        staged.chmod(0o600)

        storage.adopt_file(staged)

        assert storage.path_of(NAME).stat().st_mode & 0o777 == 0o644

    def test_takes_equal_files_from_twenty_threads(self, tmp_path):
        files = [tmp_path / f"{number}.png" for number in range(20)]
        for file in files:
            file.write_bytes(DATA)

        stored = at_once(storage.adopt_file, files)

        assert {file.name for file in stored} == {NAME}
        assert stored_files() == [NAME]
        assert not any(file.exists() for file in files)

    def test_refuses_what_is_no_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")

        with pytest.raises(UnsafePath):
            storage.adopt_file(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "/etc/passwd",
        "//etc/passwd",
        "../secret",
        "images/../../secret",
        "images/../images/a.png",
        "images\\..\\a.png",
        "images/a\0.png",
    ],
)
class TestUnsafeNames:
    def test_have_no_path(self, name):
        with pytest.raises(UnsafePath):
            storage.path_of(name)

    def test_are_neither_opened_written_nor_deleted(self, name):
        for action in (storage.open_file, storage.delete, lambda name: storage.write_file(name, DATA)):
            with pytest.raises(UnsafePath):
                action(name)


class TestSymbolicLinks:
    @pytest.fixture(params=["a file", "a folder"])
    def name(self, request, tmp_path):
        """The name of a link in the store that leads out of it."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret.png").write_bytes(DATA)
        images = storage.root() / "images"
        if request.param == "a file":
            images.mkdir(parents=True)
            (images / "secret.png").symlink_to(outside / "secret.png")
        else:
            images.parent.mkdir(parents=True)
            images.symlink_to(outside)
        return "images/secret.png"

    def test_are_refused(self, name, tmp_path):
        for action in (storage.path_of, storage.open_file, storage.delete):
            with pytest.raises(UnsafePath):
                action(name)

        assert (tmp_path / "outside" / "secret.png").read_bytes() == DATA

    def test_may_lead_to_the_media_root_itself(self, settings, tmp_path):
        (tmp_path / "disk").mkdir()
        settings.NAMED_ROOTS = {"media": tmp_path / "link"}
        (tmp_path / "link").symlink_to(tmp_path / "disk")

        storage.store_bytes(DATA, suffix="png")

        assert (tmp_path / "disk" / NAME).is_file()


class TestFullDisk:
    def test_is_noticed_before_anything_is_written(self, set_config, staged):
        set_config("storage: {minimum_free_bytes: 1000000000000000}")

        for action in (
            lambda: storage.store_bytes(DATA, suffix="png"),
            lambda: storage.adopt_file(staged),
            lambda: storage.write_file("thumbnails/a.webp", DATA),
        ):
            with pytest.raises(StorageFull):
                action()

        assert stored_files() == []
        assert staged.exists()

    def test_has_a_code(self):
        assert StorageFull.code == "disk_full"

    def test_has_a_name_when_it_shows_only_while_writing(self, full_disk):
        with pytest.raises(StorageFull):
            storage.store_bytes(DATA, suffix="png")

    def test_leaves_nothing_half_written(self, full_disk):
        with pytest.raises(StorageFull):
            storage.write_file("images/a.png", DATA)

        assert stored_files() == []

    def test_loses_neither_the_file_to_adopt_nor_those_stored_before(self, staged, monkeypatch, full_disk):
        with pytest.raises(StorageFull):
            storage.adopt_file(staged)

        assert staged.read_bytes() == DATA

    def test_hides_no_other_failure(self, monkeypatch):
        def fsync(descriptor):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", fsync)

        with pytest.raises(OSError, match="Input/output"):
            storage.store_bytes(DATA, suffix="png")
