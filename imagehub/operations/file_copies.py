"""Folders copied into a backup and back. What is as it was at the time of the backup before is linked, and not read."""

import hashlib
import heapq
import json
import os
import shutil
import stat
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from imagehub.errors import ImageHubError
from imagehub.operations.folders import lies_in

CHUNK_BYTES = 1 << 20

SHARES = 30
"""Of the files that would be linked unread, one in so many is read all the same: with a backup a day each of them once in 30 days."""


class BackupDamaged(ImageHubError):
    """A backup that is not what was written."""

    code = "backup_damaged"
    title = "The backup is damaged"


@dataclass(frozen=True)
class CopiedFile:
    """One file of a backup: where it lies below the backup, and what it was when it was copied."""

    path: str
    size_bytes: int
    modified_ns: int
    sha256: str

    @property
    def order(self) -> tuple[str, ...]:
        """By this they are sorted, as :func:`files_below` finds them."""
        return tuple(self.path.split("/"))


@dataclass
class Copied:
    """What came of copying a folder."""

    files: int = 0
    bytes: int = 0
    linked: int = 0
    """Of the files, those that were as they had been at the time of the backup before."""
    skipped: int = 0
    """Links, which are not followed, and what is no file."""
    damaged: list[str] = field(default_factory=list)
    """Those that are not what they were, here or in the backup before, though their size and time are."""


def files_below(
    root: Path, *, leave_out: frozenset[str] = frozenset()
) -> Iterator[tuple[str, os.stat_result]]:
    """Find what lies below a folder, in order: paths relative to it. Of links and the like the same, to be counted.

    Args:
        root: the folder.
        leave_out: names of folders directly below it that are passed over.
    """
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name in leave_out or entry.name == ".lock":
            continue
        with suppress(FileNotFoundError):  # deleted in the meantime
            if entry.is_dir(follow_symlinks=False):
                for path, status in files_below(Path(entry.path)):
                    yield f"{entry.name}/{path}", status
            else:
                yield entry.name, entry.stat(follow_symlinks=False)


def copy_folder(
    source: Path,
    target: Path,
    name: str,
    *,
    leave_out: frozenset[str],
    previous: Path | None,
    known: "Listing",
    write: BinaryIO,
) -> Copied:
    """Copy a folder to ``target / name``, and list what is in it.

    Args:
        source: the folder, which others go on using.
        target: the backup.
        name: what the folder is called in the backup.
        leave_out: names of folders directly below ``source`` that are passed over.
        previous: the backup before, to link to.
        known: what lies in that.
        write: where the list goes, a line of JSON for each file.
    """
    copied = Copied()
    (target / name).mkdir(mode=0o700)
    for inner, status in files_below(source, leave_out=leave_out):
        if not stat.S_ISREG(status.st_mode):
            copied.skipped += 1
            continue
        path = f"{name}/{inner}"
        before = known.find(path)
        (target / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):  # no hard links there, too many of them, or the file is gone: it is copied
            if (
                previous is not None
                and before is not None
                and _is_as_it_was(status, before)
                and (not _is_due(path) or _is_sound(source / inner, previous / path, before, copied))
            ):
                os.link(previous / path, target / path, follow_symlinks=False)
                _note(before, write)
                copied.linked += 1
                continue
        with suppress(FileNotFoundError):  # deleted in the meantime
            digest, size = copy_file(source / inner, target / path)
            _note(CopiedFile(path, size, status.st_mtime_ns, digest), write)
    return copied


def copy_what_is_new(
    source: Path, target: Path, name: str, *, leave_out: frozenset[str], known: "Listing", write: BinaryIO
) -> None:
    """Copy and list what has come or changed since :func:`copy_folder` listed ``known``. What has gone since stays in the copy."""
    draft = target / ".draft"
    for inner, status in files_below(source, leave_out=leave_out):
        path = f"{name}/{inner}"
        before = known.find(path)
        if not stat.S_ISREG(status.st_mode) or (before is not None and _is_as_it_was(status, before)):
            continue
        with suppress(FileNotFoundError):  # deleted in the meantime
            digest, size = copy_file(source / inner, draft)
            (target / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.replace(target / path)
            _note(CopiedFile(path, size, status.st_mtime_ns, digest), write)


def join_lists(first: Path, second: Path, write: BinaryIO, copied: Mapping[str, Copied]) -> None:
    """Write one list out of two, of which the second goes before the first, and count what is in it."""
    both = heapq.merge(read_list(first), read_list(second), key=lambda file: file.order)
    for path, files in groupby(both, key=lambda file: file.path):
        *_, file = files
        counts = copied[path.split("/", 1)[0]]
        counts.files += 1
        counts.bytes += file.size_bytes
        _note(file, write)


def _is_due(path: str) -> bool:
    return zlib.crc32(path.encode()) % SHARES == datetime.now(UTC).toordinal() % SHARES


def _is_sound(source: Path, copy: Path, before: CopiedFile, copied: Copied) -> bool:
    """Tell whether the copy in the backup before is what was copied. Notes it where that or the file itself is something else."""
    is_sound = sha256_of(copy) == before.sha256
    if not is_sound or sha256_of(source) != before.sha256:
        copied.damaged.append(before.path)
    return is_sound


def _is_as_it_was(status: os.stat_result, before: CopiedFile) -> bool:
    return (status.st_size, status.st_mtime_ns) == (before.size_bytes, before.modified_ns)


def _note(file: CopiedFile, write: BinaryIO) -> None:
    write.write(json.dumps(asdict(file)).encode() + b"\n")


def copy_file(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file with its mode and its times. Returns its SHA-256 and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(CHUNK_BYTES):
            digest.update(chunk)
            writing.write(chunk)
            size += len(chunk)
    shutil.copystat(source, target, follow_symlinks=False)
    return digest.hexdigest(), size


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Listing:
    """The list of a backup, read from its beginning to its end: a million files take no more memory than one."""

    def __init__(self, path: Path | None) -> None:
        self._lines = read_list(path) if path is not None and path.exists() else iter(())
        self._next = next(self._lines, None)

    def find(self, path: str) -> CopiedFile | None:
        """Return the file of this path. Ask in order, and not twice."""
        order = tuple(path.split("/"))
        while self._next is not None and self._next.order < order:
            self._next = next(self._lines, None)
        return self._next if self._next is not None and self._next.order == order else None


def read_list(path: Path) -> Iterator[CopiedFile]:
    """Read the list of a backup.

    Raises:
        BackupDamaged: a line of it cannot be read, or leads out of the backup.
    """
    with path.open("rb") as file:
        for line in file:
            try:
                fields: dict[str, Any] = json.loads(line)
                found = CopiedFile(**fields)
                parts = found.order
            except (ValueError, TypeError, AttributeError):
                raise BackupDamaged("The list of its files cannot be read.") from None
            if len(parts) < 2 or any(part in {"", ".", ".."} or "\0" in part for part in parts):
                raise BackupDamaged("The list of its files leads out of the backup.")
            yield found


def put_back(snapshot: Path, file: CopiedFile, root: Path) -> bool:
    """Put one file of a backup where it belongs, in one step. Returns whether it was not there already.

    Raises:
        BackupDamaged: it is not what was copied; nothing has changed then.
    """
    inner = Path(*file.order[1:])
    target = root / inner
    if not lies_in(target, root) or not lies_in(snapshot / file.path, snapshot):
        raise BackupDamaged(f"{file.path} is reached through a link.")
    if target.is_file() and target.stat().st_size == file.size_bytes and sha256_of(target) == file.sha256:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".restore-{uuid.uuid4().hex}")
    try:
        digest, _ = copy_file(snapshot / file.path, draft)
        if digest != file.sha256:
            raise BackupDamaged(f"{file.path} is not what was copied.")
        draft.replace(target)
    except FileNotFoundError:
        raise BackupDamaged(f"{file.path} is missing.") from None
    finally:
        draft.unlink(missing_ok=True)
    return True
