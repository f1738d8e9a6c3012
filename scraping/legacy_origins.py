"""By which crawl of the system before an image came: it wrote that down nowhere, but left traces."""

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, Self

from django.db import transaction

from albums.batches import in_batches
from albums.legacy import LegacyDatabase, LegacyRun, values
from albums.legacy.image_rows import image_key
from albums.legacy.source import Row, key_of
from albums.models import Image
from albums.services.bulk import lock_images

LARGEST_ROW = 2**31 - 1
"""The id of a row becomes the place of its image among those of its crawl."""


@dataclass(frozen=True)
class Origins:
    """What crawls have left behind, by the ids of their rows. What two of them claim is nobody's."""

    folders: Mapping[str, int]
    """Whose files lay in a folder."""
    albums: Mapping[int, int]
    """Whose images stand in an album."""
    album_of: Mapping[int, uuid.UUID]
    """The id that the album of a crawl has here."""

    @classmethod
    def of(cls, source: LegacyDatabase) -> Self:
        """Read them: each crawl may name its folder and its album, or an album its crawl, or only bear its name."""
        folders: defaultdict[str, set[int]] = defaultdict(set)
        named: defaultdict[str, set[int]] = defaultdict(set)
        linked: defaultdict[int, set[int]] = defaultdict(set)
        for row in source.rows("scrape_jobs", ("id", "name", "output_directory", "album_id")):
            if folder := _folder(values.text(row["output_directory"]).strip()):
                folders[folder].add(row["id"])
            named[f"Scraped: {values.text(row['name'])}"].add(row["id"])
            if isinstance(row["album_id"], int):
                linked[row["album_id"]].add(row["id"])
        crawls = {row for rows in named.values() for row in rows}
        ids: dict[int, uuid.UUID] = {}
        bear: defaultdict[str, set[int]] = defaultdict(set)
        for row in source.rows(
            "albums", ("id", "name", "album_type", "source_type", "source_id", "created_at")
        ):
            ids[row["id"]] = key_of("albums", row, name=values.text(row["name"]))
            if values.text(row["source_type"]).lower() == "scrape" and row["source_id"] in crawls:
                linked[row["id"]].add(row["source_id"])
            if values.text(row["album_type"]).lower() == "scraped":
                bear[values.text(row["name"])].add(row["id"])
        for name, owners in named.items():
            if len(owners) == 1 and len(bear[name]) == 1:
                (album,) = bear[name]
                if album not in linked:
                    linked[album] = owners
        albums = _unclaimed(linked)
        return cls(
            folders=_unclaimed(folders),
            albums=albums,
            album_of={crawl: ids[album] for album, crawl in albums.items() if album in ids},
        )

    def crawl_of(self, path: str, albums: Iterator[Any], *, is_generated: bool) -> int | None:
        """Return by which crawl an image came, or None where that cannot be told.

        Its file lay in the folder of the crawl; or else it stands in its album, where people may have put generated ones as well.
        """
        for folder in _parents(path):
            if folder in self.folders:
                return self.folders[folder]
        found = {self.albums[album] for album in albums if album in self.albums}
        return found.pop() if len(found) == 1 and not is_generated else None


def trace_images(origins: Origins, crawls: Mapping[int, uuid.UUID], run: LegacyRun) -> int:
    """Let imported images name the crawls that they came by; return how many do so now, or would in a dry run.

    Args:
        origins: what is known.
        crawls: those that are here, or would be, by the ids of their rows.
        run: the import.
    """
    return sum(_trace(batch, run) for batch in in_batches(_traces(origins, crawls, run.source)))


@dataclass(frozen=True)
class _Trace:
    row: int
    key: uuid.UUID
    crawl: uuid.UUID


def _traces(origins: Origins, crawls: Mapping[int, uuid.UUID], source: LegacyDatabase) -> Iterator[_Trace]:
    if not crawls:
        return
    for _, rows in groupby(_rows(source), key=lambda row: row["id"]):
        places = list(rows)
        image = places[0]
        crawl = origins.crawl_of(
            values.text(image["file_path"]),
            (place["album_id"] for place in places),
            is_generated=bool(values.text(image["prompt"]).strip()),
        )
        if crawl in crawls and 0 <= image["id"] <= LARGEST_ROW:
            yield _Trace(image["id"], image_key(image), crawls[crawl])


def _rows(source: LegacyDatabase) -> Iterator[Row]:
    """Yield images, once for each album that they are in."""
    names = source.columns("images", ["id", "filename", "file_path", "prompt", "created_at"])
    if "album_images" not in source.tables():
        names.append("NULL AS album_id")
        return source.select(f"SELECT {', '.join(names)} FROM images ORDER BY id")  # noqa: S608 - names of ours
    names += source.columns("album_images", ["album_id"])
    return source.select(
        f"SELECT {', '.join(names)} FROM images"  # noqa: S608
        " LEFT JOIN album_images ON album_images.image_id = images.id ORDER BY images.id"
    )


def _trace(traces: list[_Trace], run: LegacyRun) -> int:
    images = run.images_of([(trace.row, trace.key) for trace in traces])
    if run.dry_run:
        done = Image.objects.filter(pk__in=images.values(), source_kind=Image.SourceKind.SCRAPE)
        return len(images) - done.count()
    by_image = {images[trace.key]: trace for trace in traces if trace.key in images}
    with transaction.atomic():
        imported = Image.objects.filter(source_kind=Image.SourceKind.IMPORT)
        changed = lock_images(imported, sorted(by_image))
        rows = [
            Image(
                pk=pk,
                source_kind=Image.SourceKind.SCRAPE,
                source_id=by_image[pk].crawl,
                source_index=by_image[pk].row,
            )
            for pk in changed
        ]
        Image.objects.bulk_update(rows, ["source_kind", "source_id", "source_index"])
    return len(changed)


def _unclaimed(claims: Mapping[Any, set[int]]) -> dict[Any, int]:
    return {thing: next(iter(owners)) for thing, owners in claims.items() if len(owners) == 1}


def _folder(written: str) -> str:
    """Return a folder as paths of files name it; empty where it is none, or one that holds everything."""
    path = PurePosixPath(written.replace("\\", "/"))
    return str(path) if len(path.parts) > 1 and ".." not in path.parts else ""


def _parents(path: str) -> Iterator[str]:
    return map(str, PurePosixPath(path.replace("\\", "/")).parents)
