import errno
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from imagehub import storage
from imagehub.storage import StorageFull, UnsafePath

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


def age(name, **ago):
    path = storage.root() / name
    then = path.stat().st_mtime - timedelta(**ago).total_seconds()
    os.utime(path, (then, then))


def at_once(action, threads=20):
    barrier = threading.Barrier(threads)

    def run(number):
        barrier.wait()
        return action(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


class TestStoreBytes:
    def test_names_the_file_by_its_content(self):
        stored = storage.store_bytes(DATA, suffix="png")

        assert stored == storage.StoredFile(NAME, SHA256, len(DATA))
        assert storage.path_of(NAME).read_bytes() == DATA

    def test_keeps_equal_bytes_once(self):
        assert storage.store_bytes(DATA, suffix="png") == storage.store_bytes(DATA, suffix="png")
        assert stored_files() == [NAME]

    def test_keeps_equal_bytes_once_when_twenty_threads_bring_them(self):
        stored = at_once(lambda _: storage.store_bytes(DATA, suffix="png"))

        assert {file.name for file in stored} == {NAME}
        assert stored_files() == [NAME]
        assert storage.path_of(NAME).read_bytes() == DATA

    def test_writes_again_what_was_cut_off_from_outside(self):
        storage.store_bytes(DATA, suffix="png")
        storage.path_of(NAME).write_bytes(DATA[:5])

        storage.store_bytes(DATA, suffix="png")

        assert storage.path_of(NAME).read_bytes() == DATA

    @pytest.mark.parametrize("suffix", ["", "PNG", "../x", "p/g", "png\n", "averylongone", ".png"])
    def test_refuses_an_odd_suffix(self, suffix):
        with pytest.raises(UnsafePath):
            storage.store_bytes(DATA, suffix=suffix)

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

    def test_prefers_the_suffix_it_is_given(self, staged):
        assert storage.adopt_file(staged, suffix="webp").name.endswith(f"{SHA256}.webp")

    def test_takes_equal_files_from_twenty_threads(self, tmp_path):
        files = [tmp_path / f"{number}.png" for number in range(20)]
        for file in files:
            file.write_bytes(DATA)

        stored = at_once(lambda number: storage.adopt_file(files[number]))

        assert {file.name for file in stored} == {NAME}
        assert stored_files() == [NAME]
        assert not any(file.exists() for file in files)

    def test_refuses_a_symbolic_link(self, staged, tmp_path):
        link = tmp_path / "link.png"
        link.symlink_to(staged)

        with pytest.raises(UnsafePath):
            storage.adopt_file(link)

        assert staged.exists()

    def test_refuses_what_is_no_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")

        with pytest.raises(UnsafePath):
            storage.adopt_file(tmp_path / "pipe.png")

    def test_says_so_when_there_is_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            storage.adopt_file(tmp_path / "missing.png")


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


class TestDelete:
    def test_deletes_and_tells(self):
        storage.store_bytes(DATA, suffix="png")

        assert storage.delete(NAME) is True
        assert storage.delete(NAME) is False
        assert stored_files() == []

    def test_spares_what_is_new(self):
        storage.store_bytes(DATA, suffix="png")

        assert storage.delete(NAME, untouched_for=timedelta(hours=1)) is False

        age(NAME, hours=2)
        assert storage.delete(NAME, untouched_for=timedelta(hours=1)) is True

    @pytest.mark.parametrize("again", ["stored", "adopted"])
    def test_spares_what_was_brought_again(self, again, staged):
        storage.store_bytes(DATA, suffix="png")
        age(NAME, hours=2)

        if again == "stored":
            storage.store_bytes(DATA, suffix="png")
        else:
            storage.adopt_file(staged)

        assert storage.delete(NAME, untouched_for=timedelta(hours=1)) is False


class TestStaging:
    def test_gives_each_job_a_folder_of_its_own(self):
        folder = storage.staging_dir("0198-job")

        assert folder.is_dir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder == storage.staging_dir("0198-job")

    @pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/tmp", "a\0", "a\n"])
    def test_refuses_names_that_are_more_than_a_name(self, name):
        with pytest.raises(UnsafePath):
            storage.staging_dir(name)

    def test_files_are_adopted_without_a_copy(self):
        file = storage.staging_dir("job") / "0.png"
        file.write_bytes(DATA)
        inode = file.stat().st_ino

        storage.adopt_file(file)

        assert storage.path_of(NAME).stat().st_ino == inode

    def test_is_deleted_with_what_is_in_it(self):
        (storage.staging_dir("job") / "0.png").write_bytes(DATA)

        storage.delete_staging_dir("job")

        assert not (storage.root() / "staging/job").exists()

    def test_sweep_deletes_only_what_nobody_has_touched(self):
        for name in ("dead", "alive"):
            (storage.staging_dir(name) / "0.png").write_bytes(DATA)
            age(f"staging/{name}/0.png", days=2)
            age(f"staging/{name}", days=2)
        (storage.staging_dir("alive") / "1.png").write_bytes(DATA)
        age("staging/alive", days=2)

        assert storage.sweep_staging(timedelta(days=1)) == 1
        assert [path.name for path in (storage.root() / "staging").iterdir()] == ["alive"]

    def test_sweep_never_follows_a_link(self, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "kept").write_bytes(DATA)
        storage.staging_dir("job")
        link = storage.root() / "staging/link"
        link.symlink_to(outside)
        os.utime(link, (0, 0), follow_symlinks=False)

        storage.sweep_staging(timedelta(days=1))

        assert not link.is_symlink()
        assert (outside / "kept").exists()
