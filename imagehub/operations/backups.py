"""Backups: the database as it is at one moment, and after it the files, so that every row has its file.

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


@dataclass
class Backup:
    """A backup that was made: where, and what is in it."""

    path: Path
    database_bytes: int = 0
    copied: dict[str, Copied] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    """Older ones that had to go."""
    has_media: bool = True


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


def make_backup(folder: Path, *, roots: Sequence[Root] = USUAL_ROOTS, keep: int | None = None) -> Backup:
    """Make a backup below a folder, while everything goes on.

    Args:
        folder: where backups lie; made where it is missing.
        roots: which of the managed roots are copied. The media root is not where pictures lie in a bucket.
        keep: so many finished backups stay, the newest; None is all.

    Raises:
        Conflict: another backup is being made there.
        CopyFailed: the database cannot be copied.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        draft = folder / UNFINISHED
        draft.mkdir(mode=0o700)
        previous = max(finished(folder), default=None)
        backup = Backup(folder / _name())
        dump = database_copies.save(draft)
        backup.database_bytes = dump.stat().st_size
        known = Listing(previous / "files.jsonl" if previous else None)
        with (draft / "files.jsonl").open("xb") as listing:
            for name in sorted(roots):
                if name == "media" and settings.USES_BUCKET:
                    backup.has_media = False
                    continue
                backup.copied[name] = copy_folder(
                    root(name),
                    draft,
                    name,
                    leave_out=LEFT_OUT.get(name, frozenset()),
                    previous=previous,
                    known=known,
                    write=listing,
                )
        if settings.CONFIG_FILE.exists():
            copy_file(settings.CONFIG_FILE, draft / "config.yaml")
        (draft / "manifest.json").write_text(json.dumps(_manifest(draft, dump, backup), indent=2) + "\n")
        os.sync()
        draft.rename(backup.path)
        if keep is not None:
            for old in sorted(finished(folder))[:-keep]:
                shutil.rmtree(old)
                backup.deleted.append(old.name)
    with transaction.atomic():
        audit.record("backup.create", target_label=backup.path.name, after={"roots": sorted(backup.copied)})
    return backup


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


def restore(snapshot: Path, *, roots: Sequence[Root] = ROOTS, force: bool = False) -> Restored:
    """Put a backup back: the files first, then the database in one step. Broken off, it can be started again.

    Files that are not in the backup stay, and are leftovers for ``check_storage``. A configuration file that is there stays too.

    Args:
        snapshot: the folder of one backup.
        roots: which of the roots in it are put back.
        force: also where the database has tables, all of which then go.

    Raises:
        BackupDamaged: it is not what was written. Nothing of the database has changed then.
        Conflict: the database is not empty, or clusters are at work on it.
        CopyFailed: the database cannot be put back.
    """
    manifest = _read_manifest(snapshot)
    if not database_copies.is_empty():
        if not force:
            raise Conflict(
                "The database is not empty. To have it replaced, with all that is in it, use --force."
            )
        _refuse_while_clusters_work()
    restored = Restored(other_key=manifest["secret_key_fingerprint"] != _fingerprint())
    for file in read_list(snapshot / "files.jsonl"):
        name = file.order[0]
        if name not in ROOTS:
            raise BackupDamaged(f"It has files of {name}, which is no root.")
        if name in roots:
            restored.files += 1
            restored.written += put_back(snapshot, file, root(name))  # type: ignore[arg-type]
    if "config.yaml" in manifest["sha256"]:
        restored.kept_config = _put_back_config(snapshot / "config.yaml")
    database_copies.load(snapshot / manifest["database"])
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
        raise Conflict(f"Stop everything first: clusters are at work on this database ({', '.join(alive)}).")


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
