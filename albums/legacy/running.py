"""One run of all importers over one database."""

import tempfile
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from albums.batches import in_batches
from albums.legacy import values
from albums.legacy.files import LegacyFiles
from albums.legacy.registry import importers
from albums.legacy.report import Report
from albums.legacy.source import LegacyDatabase, key_of
from albums.models import Image
from imagehub import storage


@dataclass
class LegacyRun:
    """What an importer works with."""

    source: LegacyDatabase
    files: LegacyFiles
    report: Report
    staging: Path
    """A folder for copies of files, which is gone after the run."""
    owner: User | None = None
    dry_run: bool = False
    refused: dict[str, set[Any]] = field(default_factory=lambda: defaultdict(set))
    """Of a dry run: the ids of rows, by table, that would not be there in the end."""

    def refuse(self, table: str, row: Any, code: str, detail: str = "") -> None:
        """Note that a row is not imported. ``detail`` tells of no prompt, caption or tag."""
        self.report.table(table).refuse(row, code, detail)
        if self.dry_run:
            self.refused[table].add(row)

    def imported(self, keys: Collection[tuple[int, uuid.UUID]]) -> dict[uuid.UUID, uuid.UUID]:
        """Return by their keys the ids of those images that have been imported, each given with the id of its row.

        Also of those in the trash.
        """
        rows = Image.objects.filter(
            source_kind=Image.SourceKind.IMPORT, source_id__in=[key for _, key in keys]
        )
        found = dict(rows.values_list("source_id", "pk"))
        return found | {key: self._traced[row] for row, key in keys if row in self._traced}

    def images_of(self, keys: Collection[tuple[int, uuid.UUID]]) -> dict[uuid.UUID, uuid.UUID]:
        """Return by their keys the ids of imported images, in a dry run also of those that would be."""
        found = self.imported(keys)
        if self.dry_run:
            refused = self.refused["images"]
            found |= {key: key for row, key in keys if key not in found and row not in refused}
        return found

    @cached_property
    def _traced(self) -> dict[int, uuid.UUID]:
        """By the ids of their rows, the images that an earlier run has given to the crawls that had brought them.

        Such an image names its crawl as its source, and its row by its place there.
        """
        found: dict[int, uuid.UUID] = {}
        for rows in in_batches(self.source.rows("scrape_jobs", ("id", "name", "created_at"))):
            crawls = [key_of("scrape_jobs", row, name=values.text(row["name"])) for row in rows]
            images = Image.objects.filter(source_kind=Image.SourceKind.SCRAPE, source_id__in=crawls)
            found |= dict(images.values_list("source_index", "pk"))
        return found


def run_import(
    database: Path, media: Path, *, owner: User | None = None, dry_run: bool = False, report: Report
) -> None:
    """Import a database of the system before and its files, by all importers that are registered.

    May be interrupted and repeated at any time: each row is written with all that belongs to it or not at all.

    Args:
        database: the SQLite file. It is only read.
        media: the folder that holds the files. They are only read, and nothing outside of it is.
        owner: whose the albums and images will be.
        dry_run: whether everything is checked and nothing written.
        report: says what became of each row, however the import ends.

    Raises:
        NotLegacy: the file is no database of the system before, or is damaged.
        StorageFull: the disk is full.
    """
    with LegacyDatabase.open(database) as source, _staging(dry_run=dry_run) as staging:
        run = LegacyRun(source, LegacyFiles(media), report, staging, owner, dry_run)
        for importer in importers().values():
            importer(run)
        report.left_alone = {
            table: rows
            for table in sorted(source.tables() - report.tables.keys())
            if (rows := source.count(table))
        }


@contextmanager
def _staging(*, dry_run: bool) -> Iterator[Path]:
    """Make a folder for copies, and delete it however the block ends; that of a dry run is not among ours."""
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="imagehub-legacy-") as folder:
            yield Path(folder)
        return
    name = f"legacy-{uuid.uuid4().hex}"
    try:
        yield storage.staging_dir(name)
    finally:
        storage.delete_staging_dir(name)
