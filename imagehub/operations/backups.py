"""Backups: the files, then the database as it is at one moment, then the files that are new, so that every row has its file.

Deletions go on meanwhile: what the first look at the files has copied stays in the backup.

Each backup is a folder of its own, whole by itself, under one folder for all of them. Files that are as they were in the backup
before are linked to it, so that they take no space twice; deleting a backup harms no other.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connection, transaction

from imagehub import __version__
from imagehub.accounts import audit
from imagehub.errors import Conflict
from imagehub.jobs import presence
from imagehub.operations import database_copies
from imagehub.operations.file_copies import (
    BackupDamaged,
    Copied,
    Listing,
    copy_file,
    copy_folder,
    copy_what_is_new,
    join_lists,
    put_back,
    read_list,
    sha256_of,
)
from imagehub.roots import Root, root

FORMAT = 1
ROOTS: tuple[Root, ...] = get_args(Root)
USUAL_ROOTS: tuple[Root, ...] = ("media", "models", "training")
"""What crawls have fetched and nobody has taken in yet can be fetched again."""

LEFT_OUT: dict[str, frozenset[str]] = {
    "media": frozenset({"staging", ".locks"}),
    "training": frozenset({"cache"}),
}
"""Folders of what is in the making, or can be made again."""

UNFINISHED = ".unfinished"

_columns: dict[str, tuple[Root, str]] = {}


def register_column(table: str, column: str, root: Root) -> None:
    """Add a column that names a file below a root in each row, so that a backup sees whether it has them all."""
    _columns[table] = (root, column)


@dataclass
class Backup:
    """A backup that was made: where, and what is in it."""

    path: Path
    database_bytes: int = 0
    copied: dict[str, Copied] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    """Older ones that had to go."""
    has_media: bool = True
    shrunk: dict[str, int] = field(default_factory=dict)
    """Roots with less than half of the files that they had in the backup before, and how many that were. Nothing was deleted then."""
    missing: list[str] = field(default_factory=list)
    """Files that rows of the database name, and that are not in the backup."""

    @property
    def damaged(self) -> list[str]:
        """Files that are not what they were, though their size and time are."""
        return [path for copied in self.copied.values() for path in copied.damaged]


@dataclass
class Restored:
    """What putting a backup back has changed, or whether it is sound."""

    files: int = 0
    """All that are in it."""
    written: int = 0
    """Those that were not there already."""
    kept_config: bool = False
    """The configuration file that is there differs from that of the backup, and was left alone."""
    other_key: bool = False
    """The secret key is another than at the time: sessions and cursors from before no longer hold."""
    sessions_ended: int = 0


def make_backup(
    folder: Path, *, roots: Sequence[Root] = USUAL_ROOTS, keep: int | None = None, accept_fewer: bool = False
) -> Backup:
    """Make a backup below a folder, while everything goes on.

    Args:
        folder: where backups lie; made where it is missing.
        roots: which of the managed roots are copied. The media root is not where pictures lie in a bucket.
        keep: so many finished backups stay, the newest; None is all. All stay where a root has shrunk to less than half.
        accept_fewer: a root may have shrunk.

    Raises:
        Conflict: another backup is being made there; a root is not there; the folder lies in a root, or a root in it.
        CopyFailed: the database cannot be copied.
    """
    sources = {name: root(name) for name in sorted(roots) if not (name == "media" and settings.USES_BUCKET)}
    _refuse_wrong_folders(folder, sources)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        draft = folder / UNFINISHED
        draft.mkdir(mode=0o700)
        previous, counts = _backup_before(folder)
        backup = Backup(folder / _name(), has_media=not settings.USES_BUCKET)
        first, second = draft / "first.jsonl", draft / "second.jsonl"
        known = Listing(previous / "files.jsonl" if previous else None)
        with first.open("xb") as listing:
            for name, source in sources.items():
                backup.copied[name] = copy_folder(
                    source,
                    draft,
                    name,
                    leave_out=LEFT_OUT.get(name, frozenset()),
                    previous=previous,
                    known=known,
                    write=listing,
                )
        dump = database_copies.save(draft)
        backup.database_bytes = dump.stat().st_size
        known = Listing(first)
        with second.open("xb") as listing:
            for name, source in sources.items():
                copy_what_is_new(
                    source,
                    draft,
                    name,
                    leave_out=LEFT_OUT.get(name, frozenset()),
                    known=known,
                    write=listing,
                )
        with (draft / "files.jsonl").open("xb") as listing:
            join_lists(first, second, listing, backup.copied)
        first.unlink()
        second.unlink()
        backup.missing = list(_missing(draft, dump, backup))
        if not accept_fewer:
            backup.shrunk = {
                name: counts[name]
                for name, copied in backup.copied.items()
                if copied.files * 2 < counts.get(name, 0)
            }
        if settings.CONFIG_FILE.exists():
            copy_file(settings.CONFIG_FILE, draft / "config.yaml")
        (draft / "manifest.json").write_text(json.dumps(_manifest(draft, dump, backup), indent=2) + "\n")
        os.sync()
        draft.rename(backup.path)
        if keep is not None and not backup.shrunk:
            for old in sorted(finished(folder))[:-keep]:
                shutil.rmtree(old)
                backup.deleted.append(old.name)
    with transaction.atomic():
        audit.record("backup.create", target_label=backup.path.name, after={"roots": sorted(backup.copied)})
    return backup


def _refuse_wrong_folders(folder: Path, sources: Mapping[Root, Path]) -> None:
    for name, source in sources.items():
        if not source.is_dir():
            raise Conflict(
                f"The root {name} is not there ({source}): is it mounted? Leave it out by --roots, or make the folder."
            )
    there = folder.resolve()
    for name in ROOTS:
        source = root(name).resolve()
        if there.is_relative_to(source) or source.is_relative_to(there):
            raise Conflict(
                f"The folder of backups lies in the root {name}, or holds it ({source}): it would copy itself."
            )


def _backup_before(folder: Path) -> tuple[Path | None, dict[str, int]]:
    """Return the newest backup of which no root had shrunk, and how many files each root has in it. Any of them where all had."""
    newest = None
    for path in sorted(finished(folder), reverse=True):
        newest = newest or path
        try:
            manifest = json.loads((path / "manifest.json").read_bytes())
            if not manifest.get("shrunk"):
                return path, {name: copied["files"] for name, copied in manifest["roots"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: an older one will do
            continue
    return newest, {}


def _missing(draft: Path, dump: Path, backup: Backup) -> Iterator[str]:
    """Find files that came after the first look, stand in the database, and were deleted before the second; or that were lost before."""
    for table, (name, column) in _columns.items():
        if name in backup.copied:
            for file in database_copies.column(dump, table, column):
                if not (draft / name / file).is_file():
                    yield f"{name}/{file}"


def finished(folder: Path) -> Iterator[Path]:
    """Find the finished backups below a folder. Their names sort by age."""
    return (path.parent for path in folder.glob("[0-9]*Z/manifest.json"))


def _name() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _manifest(draft: Path, dump: Path, backup: Backup) -> dict[str, Any]:
    named = [dump.name, "files.jsonl"] + (["config.yaml"] if (draft / "config.yaml").exists() else [])
    return {
        "format": FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "database": dump.name,
        "sha256": {name: sha256_of(draft / name) for name in named},
        "roots": {name: asdict(copied) for name, copied in backup.copied.items()},
        "shrunk": sorted(backup.shrunk),
        "media_in_a_bucket": not backup.has_media,
        # Not the key: whoever has the backup would have it. Enough to tell whether it is the same.
        "secret_key_fingerprint": _fingerprint(),
    }


def _fingerprint() -> str:
    return hashlib.sha256(settings.SECRET_KEY.encode()).hexdigest()[:16]


def check(snapshot: Path) -> Restored:
    """Compare all of a backup with its checksums, and change nothing.

    Raises:
        BackupDamaged: it is not what was written.
    """
    _read_manifest(snapshot)
    checked = Restored()
    for file in read_list(snapshot / "files.jsonl"):
        path = snapshot / file.path
        if not path.is_file() or sha256_of(path) != file.sha256:
            raise BackupDamaged(f"{file.path} is missing, or not what was copied.")
        checked.files += 1
    return checked


def restore(
    snapshot: Path, *, roots: Sequence[Root] = ROOTS, force: bool = False, keep_sessions: bool = False
) -> Restored:
    """Put a backup back: the files first, then the database in one transaction. Broken off, it can be started again.

    Before anything changes, all of the backup is compared with its checksums, and the database and its programs are asked
    whether they will do. Files that are not in the backup stay, and are leftovers for ``check_storage``. A configuration file
    that is there stays too.

    Args:
        snapshot: the folder of one backup.
        roots: which of the roots in it are put back.
        force: also where the database has tables, all of which then go.
        keep_sessions: whoever was signed in at the time is so again, also who was signed out since.

    Raises:
        BackupDamaged: it is not what was written. Nothing has changed then.
        Conflict: the database is not empty, or somebody is at work on it. Nothing has changed then.
        CopyFailed: the database cannot be put back, and is what it was; files may have been put back already.
    """
    manifest = _read_manifest(snapshot)
    dump = snapshot / manifest["database"]
    if not database_copies.is_empty():
        if not force:
            raise Conflict(
                "The database is not empty. To have it replaced, with all that is in it, use --force."
            )
        _refuse_while_clusters_work()
    database_copies.refuse_while_in_use()
    database_copies.check(dump)
    for file in read_list(snapshot / "files.jsonl"):
        if file.order[0] not in ROOTS:
            raise BackupDamaged(f"It has files of {file.order[0]}, which is no root.")
    check(snapshot)
    restored = Restored(other_key=manifest["secret_key_fingerprint"] != _fingerprint())
    for file in read_list(snapshot / "files.jsonl"):
        if (name := file.order[0]) in roots:
            restored.files += 1
            restored.written += put_back(snapshot, file, root(name))  # type: ignore[arg-type]
    if "config.yaml" in manifest["sha256"]:
        restored.kept_config = _put_back_config(snapshot / "config.yaml")
    database_copies.load(dump)
    if not keep_sessions:
        restored.sessions_ended, _ = Session.objects.all().delete()
    with transaction.atomic():
        audit.record("backup.restore", target_label=snapshot.name, after={"roots": sorted(roots)})
    return restored


def _read_manifest(snapshot: Path) -> Mapping[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((snapshot / "manifest.json").read_bytes())
        is_known = (
            manifest["format"] == FORMAT and manifest["database"] in database_copies.FILE_NAMES.values()
        )
        checksums = {name: manifest["sha256"][name] for name in (manifest["database"], "files.jsonl")}
        checksums |= {name: value for name, value in manifest["sha256"].items() if name == "config.yaml"}
    except FileNotFoundError:
        raise BackupDamaged(
            "There is no finished backup: name the folder of one, with its manifest.json."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise BackupDamaged("Its manifest cannot be read.") from None
    if not is_known:
        raise BackupDamaged("It was made by another version of ImageHub, in a way that is not known here.")
    for name, expected in checksums.items():
        if not (snapshot / name).is_file() or sha256_of(snapshot / name) != expected:
            raise BackupDamaged(f"{name} is missing, or not what was written.")
    return manifest


def _refuse_while_clusters_work() -> None:
    try:
        alive = sorted(set(presence.live().values_list("cluster", flat=True)))
    except DatabaseError:  # tables of something else, or of a version without this one
        connection.close()
        return
    if alive:
        raise Conflict(
            f"{database_copies.STOP_FIRST} Clusters are at work on this database ({', '.join(alive)})."
        )


def _put_back_config(source: Path) -> bool:
    """Write the configuration file where none is. Returns whether there is another one, which stays."""
    target = Path(settings.CONFIG_FILE)
    if not target.exists():
        copy_file(source, target)
        return False
    return target.read_bytes() != source.read_bytes()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("Another backup is being made there.") from None
        yield
