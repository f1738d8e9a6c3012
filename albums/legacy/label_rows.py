"""Captions and tags. Each is there once here; older captions of the same source become the history of the newest."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.db import transaction
from django.utils import timezone

from albums.legacy import values
from albums.legacy.image_rows import image_key
from albums.legacy.running import LegacyRun
from albums.legacy.source import LegacyDatabase, Row, key_of
from albums.models import Label, LabelKind, LabelOrigin, LabelRevision
from albums.models.labels import LONGEST_TAG
from albums.services import NewLabel, put_labels
from albums.services.labels import changes
from imagehub.errors import Invalid

BATCH = 500
COLUMNS = (
    "id",
    "image_id",
    "label_text",
    "confidence",
    "label_type",
    "source_model",
    "created_by",
    "created_at",
)

SCRAPED = {"scrape_title": 0, "scrape_alt_text": 1, "scrape_caption": 2}
"""What pages said, the best last: an image has one caption of its page."""
PEOPLE = frozenset({"manual", "user"})
UNNAMED_MODEL = "unknown"


_Slot = tuple[uuid.UUID, str, str]


@dataclass
class _Candidate:
    """A row that can be a label."""

    row: Any
    new: NewLabel
    order: tuple[int, int]

    @property
    def key(self) -> uuid.UUID:
        return self.new.label_id or uuid.UUID(int=0)

    @property
    def slot(self) -> _Slot:
        return self.new.image_id, self.new.kind, self.new.identity


def import_labels(run: LegacyRun) -> None:
    """Import labels of images that have been imported."""
    run.report.table("labels")
    batch: list[Row] = []
    for _, rows in groupby(_rows(run.source), key=lambda row: row["image_id"]):
        for row in rows:  # of one image together: only then is it known which caption is the newest
            batch.append(row)
            if row["image_of_id"] is None and len(batch) >= BATCH:  # of no image: these belong to nothing
                _import(batch, run)
                batch = []
        if len(batch) >= BATCH:
            _import(batch, run)
            batch = []
    _import(batch, run)


def _rows(source: LegacyDatabase) -> Iterator[Row]:
    if "labels" not in source.tables():
        return iter(())
    names = [
        *source.columns("labels", COLUMNS),
        *source.columns("images", ["id", "filename", "created_at"], prefix="image_of_"),
    ]
    return source.select(
        f"SELECT {', '.join(names)} FROM labels LEFT JOIN images ON images.id = labels.image_id"  # noqa: S608
        " ORDER BY labels.image_id, labels.id"
    )


def _import(rows: list[Row], run: LegacyRun) -> None:
    table = run.report.table("labels")
    table.found += len(rows)
    candidates = _candidates(rows, run)
    known = _known(candidates)
    table.already_there += sum(candidate.key in known for candidate in candidates)
    fresh = [candidate for candidate in candidates if candidate.key not in known]
    newest = _newest(candidates)
    current = [candidate for candidate in fresh if newest[candidate.slot] is candidate]
    older = [candidate for candidate in fresh if _is_history(candidate, newest[candidate.slot])]
    if run.dry_run:
        written = _would_be_written(current)
    else:
        with transaction.atomic():
            labels = put_labels(candidate.new for candidate in current)
            LabelRevision.objects.bulk_create(_revision(old, newest[old.slot]) for old in older)
        written = sum(label.is_new or label.has_changed for label in labels)
    table.imported += written + len(older)
    table.already_there += len(fresh) - written - len(older)


def _candidates(rows: list[Row], run: LegacyRun) -> list[_Candidate]:
    """Return the rows that can be labels; refuse the others."""
    keys = {
        row["id"]: image_key({name: row[f"image_of_{name}"] for name in ("id", "filename", "created_at")})
        for row in rows
        if row["image_of_id"] is not None
    }
    images = run.images_of([(row["image_id"], keys[row["id"]]) for row in rows if row["id"] in keys])
    found = []
    for row in rows:
        if row["id"] not in keys:
            run.refuse("labels", row["id"], "orphan", "Its image is not in the database.")
        elif (image_id := images.get(keys[row["id"]])) is None:
            run.refuse("labels", row["id"], "image_not_imported", f"Image {row['image_id']}.")
        else:
            try:
                found.append(_candidate(row, image_id, run))
            except Invalid as error:
                run.refuse("labels", row["id"], error.code, str(error))
    return found


def _candidate(row: Row, image_id: uuid.UUID, run: LegacyRun) -> _Candidate:
    text = values.text(row["label_text"])
    kind, origin, model = _meaning(row, text)
    confidence = None
    if origin == LabelOrigin.MODEL and row["confidence"] is not None:
        confidence = values.real_number(row["confidence"], least=0, most=1)
        if confidence is None:
            run.report.table("labels").notes["confidence out of range, left out"] += 1
    new = NewLabel(
        image_id,
        kind,
        text,
        origin,
        model,
        confidence,
        created_at=values.moment(row["created_at"]),
        label_id=key_of("labels", row, name=str(row["image_id"])),
    )
    return _Candidate(row["id"], new, (SCRAPED.get(_type_of(row), 0), row["id"]))


def _meaning(row: Row, text: str) -> tuple[str, str, str]:
    """Return the kind, the origin and the model of what a row says.

    Raises:
        Invalid: it is of a type that the system before did not have.
    """
    label_type, source = _type_of(row), values.text(row["source_model"]).strip()
    origin, model = _origin(label_type, source, is_by_somebody=bool(row["created_by"]))
    if label_type == "tag":
        return LabelKind.TAG, origin, model
    if label_type in PEOPLE:  # free words; analytics counted them as tags
        return (LabelKind.TAG if len(text.strip()) <= LONGEST_TAG else LabelKind.CAPTION), origin, model
    if label_type in {"caption", "ai_generated", *SCRAPED}:
        return LabelKind.CAPTION, origin, model
    raise Invalid("Its type is not known.", pointer="/label_type", code="unknown_type")


def _origin(label_type: str, source: str, *, is_by_somebody: bool) -> tuple[str, str]:
    if label_type in SCRAPED or source.lower() == "scraper":
        return LabelOrigin.SCRAPE, ""
    if label_type in PEOPLE or source.lower() in PEOPLE or (not source and is_by_somebody):
        return LabelOrigin.HUMAN, ""
    if source or label_type == "ai_generated":
        return LabelOrigin.MODEL, source[:200] or UNNAMED_MODEL
    return LabelOrigin.IMPORT, ""


def _type_of(row: Row) -> str:
    return values.text(row["label_type"]).strip().lower() or "ai_generated"


def _known(candidates: list[_Candidate]) -> set[uuid.UUID]:
    """Return the keys of what was imported before, also of what people have changed or removed since."""
    keys = [candidate.key for candidate in candidates]
    images = {candidate.new.image_id for candidate in candidates}
    said = LabelRevision.objects.filter(image__in=images, label_id__in=keys)
    return set(Label.objects.filter(pk__in=keys).values_list("pk", flat=True)) | set(
        said.values_list("label_id", flat=True)
    )


def _newest(candidates: list[_Candidate]) -> dict[_Slot, _Candidate]:
    """Return what is said now, where several rows say the same tag, or are captions of one source."""
    return {candidate.slot: candidate for candidate in sorted(candidates, key=lambda found: found.order)}


def _is_history(candidate: _Candidate, newest: _Candidate) -> bool:
    """Tell whether a row is an older caption. A tag that is said twice is the same tag."""
    is_caption = candidate.new.kind == LabelKind.CAPTION
    return candidate is not newest and is_caption and candidate.new.text != newest.new.text


def _revision(candidate: _Candidate, newest: _Candidate) -> LabelRevision:
    old, now = candidate.new, timezone.now()
    return LabelRevision(
        image_id=old.image_id,
        label_id=candidate.key,
        change=LabelRevision.Change.REPLACED,
        kind=old.kind,
        text=old.text,
        origin=old.origin,
        model=old.model,
        confidence=old.confidence,
        made_at=old.created_at,
        written_at=old.created_at or now,
        changed_at=newest.new.created_at or now,
    )


def _would_be_written(current: list[_Candidate]) -> int:
    labels = Label.objects.filter(image__in={candidate.new.image_id for candidate in current})
    there = {(label.image_id, label.kind, label.identity): label for label in labels}
    return sum(
        candidate.slot not in there or changes(there[candidate.slot], candidate.new) for candidate in current
    )
