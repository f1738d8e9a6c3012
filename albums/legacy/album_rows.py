"""Albums, with the set templates that some of them are."""

from collections import Counter
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from albums.batches import in_batches
from albums.legacy import values
from albums.legacy.running import LegacyRun
from albums.legacy.sets import COLUMNS as SET_COLUMNS
from albums.legacy.sets import BadSet, set_fields
from albums.legacy.source import Row, key_of
from albums.models import Album, Visibility
from albums.services import create_album, update_album

BATCH = 100
COLUMNS = (
    "id", "name", "description", "album_type", "source_type", "is_public", "is_set_template", "generation_config",
    "created_at", *SET_COLUMNS,
)  # fmt: skip
TEMPLATE_COLUMNS = ("id", "name", "description", "created_at", *SET_COLUMNS)
LONGEST_NAME = 200

KINDS: dict[str, str] = {
    "batch": Album.Kind.GENERATED,
    "singles": Album.Kind.GENERATED,
    "lora-experiment": Album.Kind.GENERATED,
    "set": Album.Kind.SET,
    "deck": Album.Kind.SET,
    "zodiac": Album.Kind.SET,
    "scraped": Album.Kind.SCRAPE,
    "uploaded": Album.Kind.UPLOAD,
    "collection": Album.Kind.MANUAL,
    "manual": Album.Kind.MANUAL,
    "reference-pack": Album.Kind.MANUAL,
}
SOURCES: dict[str, str] = {"batch_generation": Album.Kind.GENERATED, "scrape": Album.Kind.SCRAPE}


def import_albums(run: LegacyRun) -> None:
    """Import albums. One whose template is broken comes without it; a later run may bring it."""
    table = run.report.table("albums")
    for rows in in_batches(run.source.rows("albums", COLUMNS), BATCH):
        keys = {row["id"]: key_of("albums", row, name=values.text(row["name"])) for row in rows}
        there = Album.objects.in_bulk(keys.values())
        for row in rows:
            table.found += 1
            key = keys[row["id"]]
            template = _template_of(row, run) if values.flag(row["is_set_template"]) else None
            if key in there:
                table.already_there += 1
                _add_template(there[key], template, run)
                continue
            album = _new_album(row, run, table.notes)
            album.pk, album.kind = key, _kind_of(row, table.notes)
            album.visibility = visibility_of(row, table.notes)
            is_new = _create(album, template or {}, run, "albums", row["id"])
            if template is not None:
                _count_template(run, is_new=is_new)


def import_templates(run: LegacyRun) -> None:
    """Import templates that stood in a table of their own. Nobody but staff sees them until somebody says so."""
    table = run.report.table("batch_templates")
    for rows in in_batches(run.source.rows("batch_templates", TEMPLATE_COLUMNS), BATCH):
        keys = {row["id"]: key_of("batch_templates", row, name=values.text(row["name"])) for row in rows}
        there = Album.objects.in_bulk(keys.values())
        for row in rows:
            table.found += 1
            if keys[row["id"]] in there:
                table.already_there += 1
                continue
            try:
                fields = set_fields(row, table.notes)
            except BadSet as error:
                run.refuse("batch_templates", row["id"], error.code, str(error))
                continue
            album = _new_album(row, run, table.notes)
            album.pk, album.kind = keys[row["id"]], Album.Kind.SET
            _create(album, fields, run, "batch_templates", row["id"])


def visibility_of(row: Row, notes: Counter[str]) -> str:
    """Return who may see a row: everybody only where that stands there beyond doubt."""
    is_public = values.flag(row["is_public"])
    if is_public is None:
        notes["visibility that cannot be read, made private"] += 1
    return Visibility.PUBLIC if is_public else Visibility.PRIVATE


def created_at(row: Row, notes: Counter[str]) -> Any:
    """Return when a row was made: now, where that cannot be read."""
    made = values.moment(row["created_at"])
    if made is None:
        notes["time that cannot be read, taken as now"] += 1
    return made or timezone.now()


def _new_album(row: Row, run: LegacyRun, notes: Counter[str]) -> Album:
    name = values.text(row["name"]).strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        notes["name that is missing or too long, changed"] += 1
    return Album(
        owner=run.owner,
        name=name[:LONGEST_NAME] or f"Album {row['id']}",
        description=values.text(row["description"]),
        created_at=created_at(row, notes),
    )


def _kind_of(row: Row, notes: Counter[str]) -> str:
    if values.flag(row["is_set_template"]):
        return Album.Kind.SET
    written, source = values.text(row["album_type"]).lower(), values.text(row["source_type"]).lower()
    kind = SOURCES.get(source) or KINDS.get(written)
    if kind is None:
        notes["kind that is not known, made manual"] += 1
    return kind or Album.Kind.MANUAL


def _create(album: Album, fields: dict[str, Any], run: LegacyRun, table: str, row: Any) -> bool:
    """Save an album that was not there, and count it; return whether it is new."""
    for name, value in fields.items():
        setattr(album, name, value)
    report = run.report.table(table)
    try:
        with transaction.atomic():
            if run.dry_run:
                album.clean_fields(exclude=["owner", "cover"])
            else:
                create_album(album)
    except ValidationError as error:
        run.refuse(table, row, "invalid", f"Not valid: {', '.join(error.message_dict)}.")
        return False
    except IntegrityError:  # another run was faster
        report.already_there += 1
        return False
    report.imported += 1
    return True


def _template_of(row: Row, run: LegacyRun) -> dict[str, Any] | None:
    table = run.report.table("set_templates")
    table.found += 1
    try:
        return set_fields(row, table.notes)
    except BadSet as error:
        run.refuse("set_templates", row["id"], error.code, str(error))
        return None


def _add_template(album: Album, template: dict[str, Any] | None, run: LegacyRun) -> None:
    """Give an album that is there the template that it could not have before."""
    if template is None:
        return
    is_missing = not album.is_set_template and not album.set_rows
    if is_missing and not run.dry_run:
        update_album(album, **template)
    _count_template(run, is_new=is_missing)


def _count_template(run: LegacyRun, *, is_new: bool) -> None:
    table = run.report.table("set_templates")
    table.imported += is_new
    table.already_there += not is_new
