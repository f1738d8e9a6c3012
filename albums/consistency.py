"""Do the rows and the files agree, and the albums with their images? What ``check_storage`` looks at and may mend."""

import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath

from django.db import transaction

from albums.batches import in_batches
from albums.models import Album, Image
from albums.services import refresh_summaries
from albums.services.albums import summary_of
from albums.services.contents import hold_contents_alone
from albums.thumbnails import thumbnail_name
from imagehub import storage
from imagehub.config import get_config

UNTOUCHED_FOR = timedelta(hours=1)
"""A file is stored before its row is written: only one that has waited this long has been abandoned."""

CONTENT = re.compile(r"[0-9a-f]{64}")


@dataclass
class Report:
    """Where the rows and the files disagree, and albums with their images."""

    rows_without_files: list[tuple[uuid.UUID, str]] = field(default_factory=list)
    files_without_rows: list[storage.FoundFile] = field(default_factory=list)
    stale_staging: list[str] = field(default_factory=list)
    miscounted_albums: list[uuid.UUID] = field(default_factory=list)
    images: int = 0
    files: int = 0

    @property
    def is_clean(self) -> bool:
        return not (
            self.rows_without_files or self.files_without_rows or self.stale_staging or self.miscounted_albums
        )


def check() -> Report:
    """Compare every row with its file, every file with the rows, and every album with its images."""
    report = Report()
    for pk, name in Image.objects.order_by("pk").values_list("pk", "storage_name").iterator():
        report.images += 1
        if not _is_there(name):
            report.rows_without_files.append((pk, name))
    for files in in_batches(_all_files()):
        report.files += len(files)
        report.files_without_rows += _without_rows(files)
    albums = Album.objects.order_by("pk").values_list("pk", flat=True)
    report.miscounted_albums = [pk for pk in albums.iterator() if _is_miscounted(pk)]
    report.stale_staging = storage.stale_staging()
    return report


def count_again(report: Report) -> int:
    """Write down what the albums hold; return how many had it wrong."""
    refresh_summaries(report.miscounted_albums)
    return len(report.miscounted_albums)


def files_without_rows() -> Iterator[storage.FoundFile]:
    """Find the files that belong to no row, one after the other: whoever deletes them need not wait for the last."""
    for files in in_batches(_all_files()):
        yield from _without_rows(files)


def remove_leftovers(files: Iterable[storage.FoundFile]) -> int:
    """Delete those of these files that still belong to no row and have been left alone for an hour; return how many.

    Abandoned staging folders go with them, and count.
    """
    deleted = sum(_delete_unless_used(file) for file in files)
    return deleted + storage.sweep_staging()


def _delete_unless_used(file: storage.FoundFile) -> bool:
    """Delete a file while nobody can insert a row that needs it, unless somebody has since it was found."""
    content = _content_of(file)
    with transaction.atomic():
        if CONTENT.fullmatch(content):  # no row names anything else
            hold_contents_alone(content)
        return bool(_without_rows([file])) and storage.delete(file.name, untouched_for=UNTOUCHED_FOR)


def _is_miscounted(album_id: uuid.UUID) -> bool:
    """Tell whether an album says something else of its images than counting them does.

    Once may be a change that came in between; twice is not.
    """
    for _ in range(2):
        found = summary_of(album_id)
        said = Album.objects.filter(pk=album_id).values(*found).first()
        if said in (None, found):
            return False
    return True


def _is_there(name: str) -> bool:
    try:
        return storage.exists(name)
    except storage.UnsafePath:
        return False


def _all_files() -> Iterator[storage.FoundFile]:
    yield from storage.walk(storage.IMAGES)
    yield from storage.walk(storage.THUMBNAILS)


def _without_rows(files: list[storage.FoundFile]) -> list[storage.FoundFile]:
    wanted = _names_in_use(files)
    return [file for file in files if file.name not in wanted]


def _content_of(file: storage.FoundFile) -> str:
    return PurePosixPath(file.name).stem


def _names_in_use(files: Iterable[storage.FoundFile]) -> set[str]:
    """Return the names that rows give to the contents of these files, thumbnails included."""
    contents = {_content_of(file) for file in files}
    rows = Image.objects.filter(sha256__in=contents).values_list("sha256", "storage_name")
    sizes = get_config().storage.thumbnail_sizes
    names = set()
    for sha256, name in rows:
        names.add(name)
        names.update(thumbnail_name(sha256, size) for size in sizes)
    return names
