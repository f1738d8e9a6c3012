"""Sets written to a folder that :mod:`~albums.set_templates.importing` reads."""

from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils.text import slugify
from ruamel.yaml import YAML

from albums.models import Album, Visibility
from albums.set_templates.csv_rows import write_rows
from albums.set_templates.entries import SIDES, TEXTS
from albums.set_templates.importing import INDEX
from albums.set_templates.rendering import unique_names
from imagehub.accounts import audit
from imagehub.errors import Conflict

LONGEST_STEM = 80
LINE_WIDTH = 110


class FolderNotEmpty(Conflict):
    code = "folder_not_empty"
    title = "The folder holds something already"


def export_sets(folder: Path, albums: Iterable[Album]) -> list[str]:
    """Write sets into a new or empty folder, and return their keys.

    An album without a key gets one, so that the folder imported again refreshes it and makes no second album. No
    adapter's file, no owner and no picture is written.

    Raises:
        FolderNotEmpty: there is something in the folder.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FolderNotEmpty("The folder is not empty.")
    albums = list(albums)
    _give_keys([album for album in albums if not album.set_key])
    entries: dict[str, dict[str, Any]] = {}
    for album, stem in zip(albums, unique_names(_slug(album.set_key) for album in albums), strict=True):
        (folder / f"{stem}.csv").write_text(write_rows(album.set_rows), encoding="utf-8", newline="")
        entries[album.set_key] = _entry(album, f"{stem}.csv")
    yaml = YAML()
    yaml.width = LINE_WIDTH
    with (folder / INDEX).open("w", encoding="utf-8") as file:
        yaml.dump(entries, file)
    return list(entries)


def _give_keys(albums: Iterable[Album]) -> None:
    taken = set(Album.objects.exclude(set_key="").values_list("set_key", flat=True))
    with transaction.atomic():
        for album in albums:
            stem = _slug(album.name)
            candidates = chain([stem], (f"{stem}_{number}" for number in count(2)))
            album.set_key = next(key for key in candidates if key not in taken)
            taken.add(album.set_key)
            Album.objects.filter(pk=album.pk).update(set_key=album.set_key)
            audit.record("album.change", album, before={"set_key": ""}, after={"set_key": album.set_key})


def _slug(text: str) -> str:
    """Return a name that a file may have on every disk."""
    return slugify(text).replace("-", "_")[:LONGEST_STEM] or "set"


def _entry(album: Album, csv_path: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": album.name,
        "description": album.description,
        "csv_path": csv_path,
        "album_type": album.kind,
        "is_public": album.visibility == Visibility.PUBLIC,
        **{name: getattr(album, name) for name in (*TEXTS, *SIDES)},
        "loras": album.loras,
    }
    return {name: value for name, value in values.items() if value not in (None, "", [])}
