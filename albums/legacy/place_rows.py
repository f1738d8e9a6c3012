"""Which images are in which albums, in which order."""

from itertools import groupby
from typing import Any

from albums.batches import in_batches
from albums.legacy import values
from albums.legacy.image_rows import image_key
from albums.legacy.running import LegacyRun
from albums.legacy.source import LegacyDatabase, Row, key_of
from albums.models import Album, AlbumImage, Image
from albums.services import add_images_to_album

BATCH = 500


def import_places(run: LegacyRun) -> None:
    """Append images to albums in the order they had. What people have added here in the meantime stays in front."""
    for album_id, rows in groupby(_rows(run.source), key=lambda row: row["album_id"]):
        album = None
        for number, batch in enumerate(in_batches(rows, BATCH)):
            if number == 0:
                album = _album_of(batch[0], album_id, run)
            _import(batch, album, run)


def _rows(source: LegacyDatabase) -> Any:
    if "album_images" not in source.tables():
        return ()
    names = [
        *source.columns("album_images", ["id", "album_id", "image_id", "sort_order"]),
        *source.columns("albums", ["id", "name", "created_at"], prefix="album_of_"),
        *source.columns("images", ["id", "filename", "created_at"], prefix="image_of_"),
    ]
    return source.select(
        f"SELECT {', '.join(names)} FROM album_images"  # noqa: S608 - names of ours
        " LEFT JOIN albums ON albums.id = album_images.album_id"
        " LEFT JOIN images ON images.id = album_images.image_id"
        " ORDER BY album_images.album_id, coalesce(album_images.sort_order, 0), album_images.id"
    )


def _album_of(row: Row, album_id: Any, run: LegacyRun) -> Album | None:
    """Return the imported album, in a dry run also one that would be."""
    album = _part(row, "album_of_")
    if album["id"] is None:
        return None
    key = key_of("albums", album, name=values.text(album["name"]))
    found = Album.objects.filter(pk=key).first()
    if found is None and run.dry_run and album_id not in run.refused["albums"]:
        return Album(pk=key)
    return found


def _import(rows: list[Row], album: Album | None, run: LegacyRun) -> None:
    table = run.report.table("album_images")
    table.found += len(rows)
    keys = {row["id"]: image_key(_part(row, "image_of_")) for row in rows if row["image_of_id"] is not None}
    images = run.images_of([(row["image_id"], keys[row["id"]]) for row in rows if row["id"] in keys])
    accepted: dict[Any, Any] = {}
    for row in rows:
        if row["album_of_id"] is None or row["image_of_id"] is None:
            run.refuse("album_images", row["id"], "orphan", "Its album or image is not in the database.")
        elif album is None:
            run.refuse("album_images", row["id"], "album_not_imported", f"Album {row['album_id']}.")
        elif keys[row["id"]] not in images:
            run.refuse("album_images", row["id"], "image_not_imported", f"Image {row['image_id']}.")
        elif images[keys[row["id"]]] in accepted:
            table.already_there += 1
        else:
            accepted[images[keys[row["id"]]]] = row
    if album is None or not accepted:
        return
    if run.dry_run:
        there = AlbumImage.objects.filter(album=album.pk, image__in=accepted).count()
        added = len(accepted) - there
    else:
        found = Image.objects.only("pk").in_bulk(accepted)
        added = add_images_to_album(album, [found[pk] for pk in accepted if pk in found])
    table.imported += added
    table.already_there += len(accepted) - added


def _part(row: Row, prefix: str) -> Row:
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
