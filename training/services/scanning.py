"""Finding weights under the models root that have no row yet, and rows whose files have gone."""

import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from imagehub import roots, storage
from imagehub.accounts import audit
from imagehub.errors import ImageHubError, Invalid
from imagehub.in_use import in_use
from training.models import Adapter, BaseModel
from training.services.adapters import (
    LONGEST_NAME,
    SUFFIX,
    UNNAMED,
    AdapterMissing,
    facts_of_file,
    fill_in,
    has_its_bytes,
    locate_adapter,
    sha256_of,
    state_of,
    turn_of,
)
from training.services.base_models import add_base_model, look_at_base_model
from training.services.places import COLLECTED, IMPORTED
from training.weights.models import INDEX

MOST_FILES = 100_000
LONGEST_SOURCE = Adapter._meta.get_field("source").max_length or 0
ABANDONED_SECONDS = 24 * 3600
"""A file without a row that is this old belongs to no import that still runs."""
MODEL_DEPTH = 3
"""How many folders deep below the models root base models are looked for."""

ADDED, UNCHANGED, CHANGED, DUPLICATE = "added", "unchanged", "changed", "duplicate"
MOVED, REFUSED, VANISHED, SWEPT = "moved", "refused", "vanished", "swept"


@dataclass(frozen=True)
class Outcome:
    """What a scan found of one file, and what it did."""

    path: str
    """Under the models root."""
    outcome: str
    detail: str = ""


def scan_adapters(*, dry_run: bool = False) -> Iterator[Outcome]:
    """Make a row for each adapter below the folder ``loras``, and disable the rows of files that have gone.

    Yields what becomes of each, while it goes on. Links are not followed. A file that is there as it was is not read
    again, so a scan can be repeated at any time. A row follows its bytes: whoever moves or renames a file moves the
    adapter. A file with other bytes is another adapter: the row of its name follows where nobody has used it, and is
    disabled otherwise, because the pictures it made name it.

    Args:
        dry_run: look, and change nothing.
    """
    yield from _AdapterScan(dry_run=dry_run).run()


def scan_base_models(*, dry_run: bool = False) -> Iterator[Outcome]:
    """Make a row for each base model below the models root that none names. Yields what becomes of each.

    Those are folders in the layout of diffusers, and single .safetensors files.

    Args:
        dry_run: look, and change nothing.
    """
    root = roots.models_root()
    known = set(BaseModel.objects.values_list("source", flat=True))
    names = set(BaseModel.objects.values_list("name", flat=True))
    for path in _models(root, MODEL_DEPTH):
        source = path.relative_to(root).as_posix()
        if source in known:
            yield Outcome(source, UNCHANGED)
            continue
        model = BaseModel(
            name=_free_name(path, names),
            kind=BaseModel.Kind.FOLDER if path.is_dir() else BaseModel.Kind.FILE,
            source=source,
        )
        try:
            if dry_run:
                look_at_base_model(model)
            else:
                add_base_model(model)
        except (ImageHubError, ValidationError) as error:
            detail = str(error) if isinstance(error, ImageHubError) else " ".join(error.messages)
            yield Outcome(source, REFUSED, detail)
        else:
            names.add(model.name)
            yield Outcome(source, ADDED, f"{model.name}, {model.get_architecture_display()}")


def _files(folder: Path) -> Iterator[Path]:
    count = 0
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(parent, name)
            if path.suffix.lower() == SUFFIX and not path.is_symlink():
                count += 1
                if count > MOST_FILES:
                    return
                yield path


@dataclass(frozen=True)
class _File:
    """A file that has been read."""

    path: Path
    source: str
    state: str
    sha256: str


class _AdapterScan:
    """One scan: first the files that no row names, to which rows may have moved, and then those with other bytes."""

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._root = roots.models_root()
        self._moved: set[UUID] = set()
        self._changed: list[_File] = []

    def run(self) -> Iterator[Outcome]:
        """Look at all files, then at all rows."""
        for path in _files(self._root / COLLECTED):
            source = path.relative_to(self._root).as_posix()
            if outcome := self._told(source, lambda path=path, source=source: self._look(path, source)):
                yield outcome
        for file in self._changed:
            if outcome := self._told(file.source, lambda file=file: self._take_in(file)):
                yield outcome
        yield from _vanished(self._moved, dry_run=self._dry_run)
        yield from _abandoned(self._root / IMPORTED, dry_run=self._dry_run)

    @staticmethod
    def _told(source: str, act: Callable[[], Outcome | None]) -> Outcome | None:
        """Act, and say of what cannot be taken in why not: it hinders no other."""
        try:
            return act()
        except ImageHubError as refusal:
            return Outcome(source, REFUSED, str(refusal))
        except ValidationError:
            return Outcome(source, REFUSED, "A value is out of range.")
        except IntegrityError:
            return Outcome(source, REFUSED, "Somebody else has taken it in at the same time.")
        except OSError:
            return Outcome(source, REFUSED, "The file cannot be read.")

    def _look(self, path: Path, source: str) -> Outcome | None:
        """Say what became of a file, or keep it for later if the row of its name has other bytes."""
        if len(source) > LONGEST_SOURCE:
            raise Invalid(f"Its path has more than {LONGEST_SOURCE} characters.", pointer="/source")
        row = self._row_of(source)
        state = state_of(path)  # before it is read: what is written meanwhile is seen next time
        if row and row.file_state == state:
            return _known(row)
        file = _File(path, source, state, sha256_of(path))
        if row and row.sha256 != file.sha256:
            self._changed.append(file)
            return None
        return self._take_in(file)

    def _row_of(self, source: str) -> Adapter | None:
        return Adapter.objects.filter(source=source).exclude(pk__in=self._moved).first()

    def _take_in(self, file: _File) -> Outcome:
        if twin := Adapter.objects.filter(sha256=file.sha256).first():
            return self._meet(twin, file)
        row = self._row_of(file.source)
        facts = facts_of_file(file.path)
        adapter = row or Adapter(
            name=(facts.title or file.path.stem)[:LONGEST_NAME] or UNNAMED,
            description=facts.description,
            source=file.source,
            trigger_words=list(facts.trigger_words),
        )
        if row and (reasons := in_use(Adapter, [row.pk])):
            _disable(row, "its file has changed", dry_run=self._dry_run)
            return Outcome(
                file.source,
                CHANGED,
                f"Disabled: the file has changed. {reasons[row.pk]} Give the new file another name.",
            )
        fill_in(adapter, facts, sha256=file.sha256, size_bytes=file.path.stat().st_size)
        adapter.file_state = file.state
        adapter.full_clean(exclude=["owner"], validate_unique=False)
        if not self._dry_run:
            with storage.alone(turn_of(file.sha256)), transaction.atomic():
                if Adapter.objects.filter(sha256=file.sha256).exists():
                    return Outcome(file.source, DUPLICATE, "The same bytes are being imported.")
                adapter.save()
        return Outcome(
            file.source, CHANGED if row else ADDED, f"{adapter}, {adapter.get_architecture_display()}"
        )

    def _meet(self, twin: Adapter, file: _File) -> Outcome:
        """Say what a file is whose bytes are an adapter already: its own, another copy, or where it has moved to."""
        if twin.source == file.source:
            if not self._dry_run:  # no change that anybody made
                Adapter.objects.filter(pk=twin.pk).update(file_state=file.state)
            return _known(twin)
        if twin.pk in self._moved or has_its_bytes(twin):
            return Outcome(file.source, DUPLICATE, f"The same bytes are the adapter “{twin}”.")
        before = twin.source
        if not self._dry_run:
            self._move(twin, file)
        self._moved.add(twin.pk)
        still = "" if twin.is_enabled else " It is disabled."
        return Outcome(file.source, MOVED, f"The adapter “{twin}” was {before}.{still}")

    def _move(self, row: Adapter, file: _File) -> None:
        """Let a row follow its bytes. Another one of that place, whose own bytes are elsewhere, gets its place for now."""
        with transaction.atomic():
            if other := Adapter.objects.filter(source=file.source).first():
                freed = row.source
                row.source = f".{row.pk}"  # two rows cannot have one place, not even for a moment
                row.save(update_fields=["source"])
                other.source = freed
                other.save(update_fields=["source"])
            row.source, row.file_state = file.source, file.state
            row.save(update_fields=["source", "file_state"])


def _known(row: Adapter) -> Outcome:
    if row.is_enabled:
        return Outcome(row.source, UNCHANGED)
    return Outcome(row.source, UNCHANGED, f"The adapter “{row}” is disabled.")


def _vanished(moved: Collection[UUID], *, dry_run: bool) -> Iterator[Outcome]:
    """Disable what nobody could use any more."""
    for row in Adapter.objects.enabled().exclude(pk__in=moved).order_by("source").iterator():
        try:
            locate_adapter(row)
        except AdapterMissing as missing:
            _disable(row, str(missing), dry_run=dry_run)
            yield Outcome(row.source, VANISHED, f"Disabled: {missing}")


def _disable(row: Adapter, reason: str, *, dry_run: bool) -> None:
    if dry_run:
        return
    with transaction.atomic():
        if Adapter.objects.enabled().filter(pk=row.pk).update(is_enabled=False):
            audit.record(
                "adapter.disable",
                row,
                before={"is_enabled": True},
                after={"is_enabled": False, "reason": reason},
            )


def _abandoned(folder: Path, *, dry_run: bool) -> Iterator[Outcome]:
    """Delete what imports left that were killed: files that have no row."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        source = f"{IMPORTED}/{path.name}"
        if path.is_symlink() or not path.is_file() or path.stat().st_mtime > time.time() - ABANDONED_SECONDS:
            continue
        with storage.alone(turn_of(path.stem)):
            if Adapter.objects.filter(source=source).exists():
                continue
            if not dry_run:
                path.unlink(missing_ok=True)
        yield Outcome(source, SWEPT, "It had no row.")


def _models(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the models below a folder. What lies in the folder of a model, or beside a file as its configuration, is none."""
    if not folder.is_dir() or not depth:
        return
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = {entry.stem for entry in entries if entry.is_file() and entry.suffix.lower() == SUFFIX}
    for entry in entries:
        if entry.is_dir() and entry.name not in files and entry.name not in {COLLECTED, IMPORTED}:
            if (entry / INDEX).is_file():
                yield entry
            else:
                yield from _models(entry, depth - 1)
        elif entry.is_file() and entry.suffix.lower() == SUFFIX:
            yield entry


def _free_name(path: Path, names: set[str]) -> str:
    stem = path.name if path.is_dir() else path.stem
    name = slugify(re.sub(r"[.]", "-", stem))[:90] or "model"
    number = 1
    free = name
    while free in names:
        number += 1
        free = f"{name}-{number}"
    return free
