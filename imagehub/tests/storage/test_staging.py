import os
from datetime import timedelta

import pytest

from imagehub import storage
from imagehub.storage import UnsafePath

DATA = b"the bytes of a picture"


def age(name, **ago):
    path = storage.root() / name
    then = path.stat().st_mtime - timedelta(**ago).total_seconds()
    os.utime(path, (then, then))


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

        stored = storage.adopt_file(file)

        assert storage.path_of(stored.name).stat().st_ino == inode

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
