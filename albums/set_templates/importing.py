"""Sets from a folder: a ``config.yaml`` that maps keys to entries, and a CSV file of rows for each.

An album remembers the key that it came from, so that the same folder imported again refreshes it.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from albums.models import Album, Visibility
from albums.services import create_album
from albums.set_templates.csv_rows import MAX_BYTES, Row, columns_of, read_rows
from albums.set_templates.entries import SetEntry, read_entry, title_of
from albums.set_templates.validation import validate_set_template
from imagehub.accounts import audit
from imagehub.errors import Fault, ImageHubError, Invalid, InvalidFields
from imagehub.strict_yaml import load_yaml

INDEX = "config.yaml"
SHIPPED = Path(__file__).parent / "shipped"
"""The folder of the sets that come with ImageHub."""

DISCOVERED = {
    "style_suffix": "intricate details, balanced composition",
    "example_theme": "watercolor on paper",
}
"""What a CSV file without an entry gets, besides a name and a template of its columns."""


class SetsUnreadable(ImageHubError):
    code = "sets_unreadable"
    title = "The folder of sets cannot be read"


class Outcome(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass
class ImportedSet:
    """What became of one set of the folder."""

    key: str
    outcome: Outcome
    name: str = ""
    album: str | None = None
    """The id of the album; none of one that only a dry run has made."""
    rows: int = 0
    changed: list[str] = field(default_factory=list)
    """The columns of the album that were refreshed."""
    reasons: list[str] = field(default_factory=list)
    """Why it was skipped, or has failed."""
    warnings: list[str] = field(default_factory=list)


class _Skipped(Exception):
    """A set without rows, which is left alone as it always was."""


def import_sets(folder: Path, *, owner: User | None = None, dry_run: bool = False) -> Iterator[ImportedSet]:
    """Create or refresh an album for each set of a folder, and yield what became of it.

    Each set is imported in a transaction of its own: a broken one keeps no other from coming in. ``owner`` owns the
    albums that are made. A dry run does all of it and takes it back.

    Raises:
        SetsUnreadable: there is no such folder, its index is no good, or it holds no set at all.
    """
    folder, index = _read_index(folder)
    sources: list[tuple[Any, Any]] = [*index.items(), *_discover(folder, index)]
    if not sources:
        raise SetsUnreadable(f"There is neither a {INDEX} nor a CSV file in the folder.")
    return (_import_set(folder, key, data, owner=owner, dry_run=dry_run) for key, data in sources)


def summary_of(imported: list[ImportedSet]) -> dict[str, int]:
    """Return how many sets met each outcome."""
    counts = Counter(item.outcome for item in imported)
    return {outcome.value: counts[outcome] for outcome in Outcome}


def _read_index(folder: Path) -> tuple[Path, Mapping[Any, Any]]:
    if not folder.is_dir():
        raise SetsUnreadable("There is no such folder.")
    folder = folder.resolve()
    if not (folder / INDEX).is_symlink() and not (folder / INDEX).exists():
        return folder, {}
    try:
        index = load_yaml(_read(folder, INDEX).decode("utf-8-sig"))
    except (Invalid, ValueError) as error:
        raise SetsUnreadable(f"{INDEX}: {error}") from error
    if not isinstance(index, Mapping | None):
        raise SetsUnreadable(f"{INDEX} is a mapping of keys to sets.")
    return folder, index or {}


def _discover(folder: Path, index: Mapping[Any, Any]) -> Iterator[tuple[str, None]]:
    """Find the CSV files that no entry speaks of."""
    spoken_of = {f"{key}.csv" for key in index} | {
        PurePath(path).as_posix()
        for data in index.values()
        if isinstance(data, Mapping) and isinstance(path := data.get("csv_path"), str)
    }
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".csv" and not {path.name, f"{path.stem}.csv"} & spoken_of:
            yield path.stem, None


def _import_set(folder: Path, key: Any, data: Any, *, owner: User | None, dry_run: bool) -> ImportedSet:
    result = ImportedSet(str(key)[:100], Outcome.FAILED)
    try:
        entry, rows = _read_set(folder, key, data)
        result.name, result.warnings, result.rows = entry.values["name"], entry.warnings, len(rows)
        with transaction.atomic():
            _save(entry, rows, owner, result)
            if dry_run:
                transaction.set_rollback(True)
    except _Skipped as error:
        result.outcome, result.reasons = Outcome.SKIPPED, [str(error)]
    except Invalid as error:
        result.reasons = [
            f"{fault.pointer}: {fault.detail}" if fault.pointer else fault.detail for fault in error.faults
        ]
    except IntegrityError:
        result.reasons = ["Somebody else has imported a set of this key at the same time."]
    if dry_run and result.outcome is Outcome.CREATED:
        result.album = None
    return result


def _read_set(folder: Path, key: Any, data: Any) -> tuple[SetEntry, list[Row]]:
    is_discovered = data is None and isinstance(key, str) and _exists(folder, _csv_of(folder, key))
    entry = read_entry(key, {} if is_discovered else data)
    rows = _read_rows(folder, entry)
    if is_discovered:
        entry.values |= DISCOVERED | {
            "base_prompt": f"A {title_of(entry.key)} card",
            "prompt_template": _template_of(columns_of(rows)),
        }
        entry.warnings.append("It has no entry: the texts of the set are made up.")
    return entry, rows


def _csv_of(folder: Path, key: str) -> str:
    """Return the file of a set that names none; on disk its ending may be written in capitals."""
    return next((name for name in (f"{key}.csv", f"{key}.CSV") if _exists(folder, name)), f"{key}.csv")


def _exists(folder: Path, relative: str) -> bool:
    try:
        return (folder / relative).exists() or (folder / relative).is_symlink()
    except (OSError, ValueError):
        return False


def _template_of(columns: list[str]) -> str:
    wanted = [name for name in ("name", "description") if name in columns]
    return ", ".join(f"{{{column}}}" for column in (wanted if len(wanted) == 2 else columns))


def _read_rows(folder: Path, entry: SetEntry) -> list[Row]:
    relative = entry.csv_path or _csv_of(folder, entry.key)
    if entry.csv_path is None and not _exists(folder, relative):
        raise _Skipped(f"There is no file of rows ({entry.key}.csv).")
    rows = read_rows(_read(folder, relative))
    if not rows:
        raise _Skipped("It has no rows.")
    return rows


def _read(folder: Path, relative: str) -> bytes:
    """Return the content of a file in the folder.

    Raises:
        Invalid: it lies elsewhere, is no file, or is too large.
    """
    named = PurePath(relative)
    try:
        path = (folder / named).resolve()
        if named.is_absolute() or ".." in named.parts or not path.is_relative_to(folder):
            raise Invalid("The file lies outside of the folder.", pointer="/csv_path", code="outside")
        if not path.is_file():  # a pipe would be waited for
            raise Invalid("There is no such file.", pointer="/csv_path", code="missing")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a NUL in it, links in a circle
        raise Invalid("The file cannot be read.", pointer="/csv_path", code="unreadable") from error
    if len(data) > MAX_BYTES:
        raise Invalid(f"The file has more than {MAX_BYTES} bytes.", pointer="/csv_path", code="too_large")
    return data


def _save(entry: SetEntry, rows: list[Row], owner: User | None, result: ImportedSet) -> None:
    """Write the album of a set, and note in the result what was done.

    Raises:
        IntegrityError: an album with its key has come into being at the same time.
        Invalid: the set is not valid.
    """
    values = entry.values | {"set_rows": rows}
    if entry.visibility:
        values["visibility"] = entry.visibility
    album = Album.objects.select_for_update().filter(set_key=entry.key).first()
    is_new = album is None
    if album is None:
        album = Album(set_key=entry.key, owner=owner, visibility=Visibility.PRIVATE)
    before = {name: getattr(album, name) for name in values}
    for name, value in values.items():
        setattr(album, name, value)
    _check(album)
    changed = [name for name, value in values.items() if _as_text(value) != _as_text(before[name])]
    if is_new:
        create_album(album)
    elif changed:
        album.save(update_fields=[*changed, "updated_at"])
    if is_new or changed:
        known = {} if is_new else {name: before[name] for name in changed}
        after = values if is_new else {name: values[name] for name in changed}
        audit.record("album.import_set", album, before=known, after=after)
    result.album = str(album.pk)
    result.changed = [] if is_new else changed
    result.outcome = Outcome.CREATED if is_new else Outcome.UPDATED if changed else Outcome.UNCHANGED


def _check(album: Album) -> None:
    validate_set_template(album)
    try:
        album.clean_fields(exclude=["owner", "cover"])
    except ValidationError as error:
        raise InvalidFields(
            [Fault(f"/{name}", text) for name, texts in error.message_dict.items() for text in texts]
        ) from error


def _as_text(value: Any) -> str:
    """Write a value so that the order of columns counts too."""
    return json.dumps(value)
