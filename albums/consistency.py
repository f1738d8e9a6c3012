"""Do the rows and the files agree? What ``check_storage`` looks at, and what it may delete."""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import PurePosixPath

from albums.models import Image
from albums.thumbnails import thumbnail_name
from imagehub import storage
from imagehub.config import get_config

UNTOUCHED_FOR = timedelta(hours=1)
"""A file is stored before its row is written: only one that has waited this long has been abandoned."""

STAGING_ABANDONED_AFTER = timedelta(days=1)
BATCH = 500


@dataclass
class Report:
    """Where the rows and the files disagree."""

    rows_without_files: list[tuple[uuid.UUID, str]] = field(default_factory=list)
    files_without_rows: list[storage.FoundFile] = field(default_factory=list)
    stale_staging: list[str] = field(default_factory=list)
    images: int = 0
    files: int = 0

    @property
    def is_clean(self) -> bool:
        return not (self.rows_without_files or self.files_without_rows or self.stale_staging)


def check() -> Report:
    """Compare every row with its file, and every file with the rows."""
    report = Report()
    for pk, name in Image.objects.order_by("pk").values_list("pk", "storage_name").iterator():
        report.images += 1
        if not _is_there(name):
            report.rows_without_files.append((pk, name))
    for files in _batches(_all_files()):
        report.files += len(files)
        wanted = _names_in_use(files)
        report.files_without_rows += [file for file in files if file.name not in wanted]
    report.stale_staging = storage.stale_staging(STAGING_ABANDONED_AFTER)
    return report


def remove_leftovers(report: Report) -> int:
    """Delete the files that belong to no row and have been left alone for an hour; return how many."""
    deleted = sum(
        storage.delete(file.name, untouched_for=UNTOUCHED_FOR) for file in report.files_without_rows
    )
    return deleted + storage.sweep_staging(STAGING_ABANDONED_AFTER)


def _is_there(name: str) -> bool:
    try:
        return storage.path_of(name).is_file()
    except storage.UnsafePath:
        return False


def _all_files() -> Iterator[storage.FoundFile]:
    yield from storage.walk(storage.IMAGES)
    yield from storage.walk(storage.THUMBNAILS)


def _names_in_use(files: Iterable[storage.FoundFile]) -> set[str]:
    """Return the names that rows give to the contents of these files, thumbnails included."""
    contents = {PurePosixPath(file.name).stem for file in files}
    rows = Image.objects.filter(sha256__in=contents).values_list("sha256", "storage_name")
    sizes = get_config().storage.thumbnail_sizes
    names = set()
    for sha256, name in rows:
        names.add(name)
        names.update(thumbnail_name(sha256, size) for size in sizes)
    return names


def _batches(files: Iterator[storage.FoundFile]) -> Iterator[list[storage.FoundFile]]:
    while batch := list(islice(files, BATCH)):
        yield batch
