"""Backups that are made, lost everything after, and put back: rows and bytes are what they were, on both databases."""

import json
import shutil
import stat
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.operations import backups, database_copies, file_copies
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

    with pytest.raises(CommandError, match=r"clusters are at work on this database \(default\)"):
        call_command("restore", the_only(folder), "--force")


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
