"""Backups that are made, lost everything after, and put back: rows and bytes are what they were, on both databases."""

import gc
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from albums.models import Image
from albums.tests.factories import ImageFactory, picture
from imagehub import storage
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.operations import backups, database_copies, file_copies
from imagehub.operations.database_copies import CopyFailed
from imagehub.operations.file_copies import BackupDamaged
from imagehub.roots import media_root, models_root, training_root

pytestmark = pytest.mark.django_db(transaction=True)

FILES = {
    "media/images/ab/first.png": b"first",
    "media/images/ab-c/second.png": b"second" * 1000,
    "media/images/ab/z.png": b"",
    "models/adapters/x.safetensors": b"weights",
    "training/runs/1/run.log": b"line\n",
}
NOT_COPIED = {
    "media/staging/job/half.png": b"half",
    "media/.lock": b"",
    "media/.locks/7": b"",
    "training/cache/latent": b"again",
}


@pytest.fixture(autouse=True)
def alone(transactional_db) -> Iterator[None]:
    """Nobody else is connected, threads of earlier tests neither; and whatever becomes of the database, later tests have one."""
    for found in gc.get_objects():
        # By its type: a lazy object would have to find out what it is.
        if issubclass(type(found), BaseDatabaseWrapper) and found is not connections["default"]:
            if found.connection is not None:
                found.connection.close()
            found.connection = None
    yield
    if User._meta.db_table not in connection.introspection.table_names():
        call_command("migrate", verbosity=0)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def filled(settings) -> Path:
    """A system with rows and files, of which a link leads out."""
    base = Path(settings.VAR_DIR)
    for name, content in (FILES | NOT_COPIED).items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(content)
    (base / "secret.txt").write_bytes(b"out of bounds")
    (media_root() / "images" / "link.png").symlink_to(base / "secret.txt")
    for name in ("Ada", "Żółć 'quoted' \\ %s"):
        UserFactory(first_name=name)
    return base


def all_rows() -> dict[str, list[tuple]]:
    """Return what stands in each table, but for what making and restoring backups writes down."""
    rows = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            if table != AuditEntry._meta.db_table:
                cursor.execute(f'SELECT * FROM "{table}"')
                rows[table] = sorted(cursor.fetchall(), key=repr)
    return rows


def all_files(base: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(base)): path.read_bytes()
        for root in (media_root(), models_root(), training_root())
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def the_only(folder: Path) -> Path:
    [snapshot] = backups.finished(folder)
    return snapshot


def lose_everything() -> None:
    for root in (media_root(), models_root(), training_root()):
        shutil.rmtree(root)
    User.objects.all().delete()
    UserFactory(email="somebody.else@example.com")


def test_rows_and_bytes_come_back(folder, filled, capsys):
    rows = all_rows()
    call_command("backup", folder)
    lose_everything()

    with pytest.raises(CommandError, match="not empty"):
        call_command("restore", the_only(folder))
    assert not media_root().exists()
    call_command("restore", the_only(folder), "--force")

    assert all_rows() == rows
    assert all_files(filled) == FILES
    assert "5 files (5 were not there)" in capsys.readouterr().out
    UserFactory()  # sequences go on where they were
    assert list(AuditEntry.objects.order_by("at").values_list("action", "via"))[-2:] == [
        ("backup.restore", "command"),
        ("user.create", "system"),
    ]


def test_an_empty_database_needs_no_force(folder, filled):
    rows = all_rows()
    backups.make_backup(folder)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    else:
        connection.close()
        for name in Path(connection.settings_dict["NAME"]).parent.glob("test.sqlite3*"):
            name.unlink()
    assert database_copies.is_empty()

    restored = backups.restore(the_only(folder))

    assert (restored.files, restored.written) == (5, 0)  # the files had not gone
    assert all_rows() == rows
    # Nobody on this machine but its owner reads a backup.
    assert stat.S_IMODE(the_only(folder).stat().st_mode) == 0o700


@pytest.mark.once
def test_a_second_backup_takes_space_for_what_is_new_alone(folder, filled, monkeypatch):
    names = iter(["20260101T000000Z", "20260102T000000Z", "20260103T000000Z"])
    monkeypatch.setattr(backups, "_name", lambda: next(names))
    first = backups.make_backup(folder)
    (training_root() / "runs/1/run.log").write_bytes(b"line\nnext\n")
    (media_root() / "images/ab/first.png").unlink()
    (media_root() / "images/a").mkdir()
    (media_root() / "images/a/new.png").write_bytes(b"new")

    second = backups.make_backup(folder)

    assert {name: copied.linked for name, copied in first.copied.items()} == {
        "media": 0,
        "models": 0,
        "training": 0,
    }
    assert {name: copied.linked for name, copied in second.copied.items()} == {
        "media": 2,
        "models": 1,
        "training": 0,
    }
    shared = [
        path.relative_to(second.path)
        for path in second.path.rglob("*")
        if path.is_file() and path.stat().st_nlink > 1
    ]
    assert {str(path) for path in shared} == {
        "media/images/ab-c/second.png",
        "media/images/ab/z.png",
        "models/adapters/x.safetensors",
    }
    assert backups.check(second.path).files == 5

    third = backups.make_backup(folder, keep=1)

    assert third.deleted == ["20260101T000000Z", "20260102T000000Z"]
    assert the_only(folder) == third.path
    assert backups.check(third.path).files == 5


@pytest.mark.once
@pytest.mark.parametrize(
    "victim", ["media/images/ab/first.png", "files.jsonl", "manifest.json", "database", "missing"]
)
def test_what_is_damaged_is_not_put_back(folder, filled, victim):
    backups.make_backup(folder)
    snapshot = the_only(folder)
    rows = all_rows()
    if victim == "missing":
        (snapshot / "media/images/ab/first.png").unlink()
    else:
        path = snapshot / (database_copies.FILE_NAMES[connection.vendor] if victim == "database" else victim)
        path.write_bytes(path.read_bytes()[:-1] + b"X")
    shutil.rmtree(media_root())

    with pytest.raises(BackupDamaged):
        backups.check(snapshot)
    with pytest.raises(BackupDamaged):
        backups.restore(snapshot, force=True)

    assert all_rows() == rows
    assert not (media_root() / "images/ab/first.png").exists()
    assert list(media_root().rglob(".restore-*")) == []


@pytest.mark.once
def test_a_list_that_was_tampered_with_leads_nowhere(folder, filled, tmp_path):
    backups.make_backup(folder)
    snapshot = the_only(folder)
    line = json.loads((snapshot / "files.jsonl").read_bytes().splitlines()[0])
    (snapshot / "files.jsonl").write_text(json.dumps(line | {"path": "media/../../evil.png"}) + "\n")
    manifest = json.loads((snapshot / "manifest.json").read_text())
    manifest["sha256"]["files.jsonl"] = file_copies.sha256_of(snapshot / "files.jsonl")
    (snapshot / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(BackupDamaged, match="leads out"):
        backups.restore(snapshot, force=True)
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.once
def test_a_folder_that_has_become_a_link_is_not_written_through(folder, filled, tmp_path):
    backups.make_backup(folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(media_root() / "images/ab")
    (media_root() / "images/ab").symlink_to(elsewhere)

    with pytest.raises(BackupDamaged, match="through a link"):
        backups.restore(the_only(folder), force=True)
    assert list(elsewhere.iterdir()) == []


def test_nothing_is_restored_under_clusters_at_work(folder, filled):
    backups.make_backup(folder)
    presence.announce(Cluster.DEFAULT)

    with pytest.raises(CommandError, match=r"Clusters are at work on this database \(default\)"):
        call_command("restore", the_only(folder), "--force")


def test_nothing_is_restored_while_somebody_has_the_database_open(folder, filled):
    backups.make_backup(folder)
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM auth_user")
        try:
            with pytest.raises(CommandError, match="Stop the web server and the clusters first"):
                call_command("restore", the_only(folder), "--force")
        finally:
            other.close()


def test_a_copy_that_breaks_off_in_the_middle_leaves_the_rows(folder, filled):
    backups.make_backup(folder)
    snapshot = the_only(folder)
    dump = snapshot / database_copies.FILE_NAMES[connection.vendor]
    dump.write_bytes(dump.read_bytes()[: dump.stat().st_size * 7 // 10])
    manifest = json.loads((snapshot / "manifest.json").read_text())
    manifest["sha256"][dump.name] = file_copies.sha256_of(dump)
    (snapshot / "manifest.json").write_text(json.dumps(manifest))
    UserFactory()
    rows = all_rows()

    with pytest.raises(CopyFailed, match=r"(pg_restore|SQLite) says"):
        backups.restore(snapshot, force=True)

    assert all_rows() == rows


def test_an_error_of_sql_in_the_middle_leaves_the_rows(folder, filled):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite copies pages")
    backups.make_backup(folder)
    with connection.cursor() as cursor:
        # A view is no table: it stays, and is in the way of the table of its name.
        cursor.execute("DROP TABLE django_session; CREATE VIEW django_session AS SELECT 1 AS one")
    User.objects.all().delete()
    UserFactory()
    rows = all_rows()
    try:
        with pytest.raises(CopyFailed, match=r"psql says: .*django_session.* as it was"):
            backups.restore(the_only(folder), force=True)
        assert all_rows() == rows
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP VIEW django_session")
        backups.restore(the_only(folder), force=True)
    assert User.objects.count() == 2


@pytest.mark.parametrize("program", ["psql", "pg_restore"])
def test_without_the_programs_nothing_is_touched(folder, filled, monkeypatch, tmp_path, program):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite needs no program")
    backups.make_backup(folder)
    (tmp_path / "bin").mkdir()
    for other in {"psql", "pg_restore"} - {program}:
        (tmp_path / "bin" / other).symlink_to(shutil.which(other))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    shutil.rmtree(media_root())
    rows = all_rows()

    with pytest.raises(CopyFailed, match=f"{program} is not installed"):
        backups.restore(the_only(folder), force=True)

    assert all_rows() == rows
    assert not media_root().exists()


@pytest.mark.once
def test_who_was_signed_in_then_is_not_signed_in_again(folder, filled):
    session = SessionStore()
    session.create()
    backups.make_backup(folder)

    assert backups.restore(the_only(folder), force=True).sessions_ended == 1
    assert not Session.objects.exists()
    backups.restore(the_only(folder), force=True, keep_sessions=True)
    assert Session.objects.exists()


def test_what_is_deleted_meanwhile_is_in_the_backup_as_far_as_its_rows_are(
    folder, filled, monkeypatch, capsys
):
    """The first look has `early`, the second `new`; `lost` lived between the two, and the database has its row."""
    colors = {name: picture(color=name) for name in ("red", "green", "blue")}
    early = ImageFactory(content=colors["red"])
    save = database_copies.save

    def save_while_others_work(draft: Path) -> Path:
        new, lost = ImageFactory(content=colors["green"]), ImageFactory(content=colors["blue"])
        dump = save(draft)
        for image in (early, lost):
            Image.objects.filter(pk=image.pk).delete()
            assert storage.delete(image.storage_name)
        names.extend(image.storage_name for image in (early, new, lost))
        return dump

    names: list[str] = []
    monkeypatch.setattr(database_copies, "save", save_while_others_work)

    call_command("backup", folder)

    is_there = [(the_only(folder) / "media" / name).is_file() for name in names]
    assert is_there == [True, True, False]
    told = capsys.readouterr().err
    assert "Rows name files that are not there (see check_storage): 1\n" in told
    assert f"media/{names[2]}" in told
    assert backups.check(the_only(folder)).files == len(FILES) + 2


@pytest.mark.once
def test_a_root_that_is_not_mounted_deletes_no_backup(folder, filled, monkeypatch):
    names = iter([f"2026010{day}T000000Z" for day in range(1, 6)])
    monkeypatch.setattr(backups, "_name", lambda: next(names))
    call_command("backup", folder)
    media_root().rename(filled / "elsewhere")

    with pytest.raises(CommandError, match="The root media is not there"):
        call_command("backup", folder, "--keep", "1")
    media_root().mkdir()
    for _ in range(2):  # the empty one is not what the next is measured by
        with pytest.raises(CommandError, match="media has 0 files and had 3"):
            call_command("backup", folder, "--keep", "1")
    assert len(list(backups.finished(folder))) == 3

    media_root().rmdir()
    (filled / "elsewhere").rename(media_root())
    assert backups.make_backup(folder).copied["media"].linked == 3
    shutil.rmtree(media_root())
    media_root().mkdir()
    call_command("backup", folder, "--keep", "1", "--accept-fewer")
    assert the_only(folder).name == "20260105T000000Z"


@pytest.mark.once
def test_files_that_rot_are_found_and_not_handed_on(folder, filled, monkeypatch, capsys):
    names = iter([f"2026010{day}T000000Z" for day in range(1, 3)])
    monkeypatch.setattr(backups, "_name", lambda: next(names))
    monkeypatch.setattr(file_copies, "SHARES", 1)
    first = backups.make_backup(folder).path
    rotten, kept = "media/images/ab/first.png", "models/adapters/x.safetensors"
    for path in (filled / rotten, first / kept):
        status = path.stat()
        path.write_bytes(b"X" + path.read_bytes()[1:])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(CommandError, match="files were damaged"):
        call_command("backup", folder)

    second = max(backups.finished(folder))
    assert backups.check(second).files == len(FILES)
    assert [(second / path).read_bytes() for path in (rotten, kept)] == [FILES[rotten], FILES[kept]]
    told = capsys.readouterr().err
    assert rotten in told
    assert kept in told


@pytest.mark.once
@pytest.mark.parametrize("where", ["media/backups", "media", "."])
def test_a_backup_does_not_copy_itself(filled, where):
    with pytest.raises(CommandError, match="it would copy itself"):
        call_command("backup", filled / where)


@pytest.mark.once
def test_two_at_once_are_refused_and_a_broken_off_one_is_cleared(folder, filled):
    (folder / backups.UNFINISHED / "media").mkdir(parents=True)
    with backups._alone(folder), pytest.raises(CommandError, match="Another backup"):
        call_command("backup", folder)

    call_command("backup", folder, "--roots")

    assert sorted(path.name for path in the_only(folder).iterdir()) == sorted(
        ["manifest.json", "files.jsonl", "config.yaml", database_copies.FILE_NAMES[connection.vendor]]
    )


@pytest.mark.once
def test_the_configuration_that_is_there_stays_and_the_key_is_nowhere(folder, filled, settings, capsys):
    call_command("backup", folder)
    saved = b"".join(path.read_bytes() for path in the_only(folder).rglob("*") if path.is_file())
    assert django_settings.SECRET_KEY.encode() not in saved
    settings.CONFIG_FILE.write_text("storage: {minimum_free_bytes: 1}\n")
    settings.SECRET_KEY = "another" * 10

    call_command("restore", the_only(folder), "--force")

    assert "minimum_free_bytes: 1" in settings.CONFIG_FILE.read_text()
    told = capsys.readouterr().err
    assert "configuration file" in told
    assert "SECRET_KEY" in told


def test_without_the_programs_of_postgresql_it_is_said(folder, filled, monkeypatch):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite needs no program")
    monkeypatch.setenv("PATH", str(folder))

    with pytest.raises(CommandError, match="pg_dump is not installed"):
        call_command("backup", folder)
    assert list(backups.finished(folder)) == []


@pytest.mark.once
def test_the_list_of_the_backup_before_is_read_along_with_the_folder(tmp_path):
    """So a million files take no more memory than a few."""
    line = {"size_bytes": 1, "modified_ns": 1, "sha256": "0"}
    paths = [f"media/{name}" for name in ("a/x", "a/y", "a-b/x", "b")]
    (tmp_path / "list").write_text("".join(json.dumps(line | {"path": path}) + "\n" for path in paths))
    listing = file_copies.Listing(tmp_path / "list")

    found = [
        listing.find(path) for path in ("media/a/w", "media/a/y", "media/a-b/x", "media/c", "training/x")
    ]

    assert [file and file.path for file in found] == [None, "media/a/y", "media/a-b/x", None, None]
