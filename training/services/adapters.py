"""LoRA adapters: taken in, found, changed and deleted. A row goes with one file under the models root."""

import errno
import hashlib
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction

from albums.models import Image
from imagehub import roots, storage
from imagehub.accounts import audit
from imagehub.errors import Conflict, Invalid, NotReady
from imagehub.in_use import InUse, in_use
from imagehub.room import lack_of_room
from training.models import Adapter, TrainingRun
from training.services.places import IMPORTED, place_of
from training.weights import AdapterFacts, WeightsRefused, read_header, recognise_adapter
from training.weights.adapters import SCALARS

if TYPE_CHECKING:
    from django.contrib.auth.models import User

FILE_MODE = 0o644
SUFFIX = ".safetensors"
UNNAMED = "Untitled"
LONGEST_NAME = Adapter._meta.get_field("name").max_length or 0
CHANGEABLE = frozenset({"name", "description", "trigger_words", "default_weight", "is_enabled"})


class AdapterMissing(NotReady):
    code = "adapter_missing"
    title = "The file of the adapter is not on this machine"


class AdapterGone(Conflict):
    code = "adapter_gone"
    title = "The adapter has been deleted"


class AdapterRefused(Invalid):
    """The file is no adapter that the engine loads; the text says why."""


def import_adapter(
    file: Path,
    *,
    name: str = "",
    file_name: str = "",
    owner: "User | None" = None,
    description: str = "",
    trigger_words: list[str] | None = None,
    training_run: TrainingRun | None = None,
    training_step: int | None = None,
) -> tuple[Adapter, bool]:
    """Take an adapter in; return it, and whether it is new. Afterwards the file is no longer where it was.

    Its file gets the name of its content. The same bytes are one adapter, however often and by how many they are
    imported: the later ones find the row of the first as it is, and where its file was lost or damaged they bring it back.

    The file comes first: whatever dies in between leaves a file without a row, which :func:`scan_adapters` sweeps, and
    never a row without a file. Not to be called with a transaction open.

    Args:
        file: what came in, in a folder of the caller's.
        name: what to call it. Empty: what its header says, or else what the file was called.
        file_name: what the file was called, if not as it is now.
        owner: whose it is.
        description: what to say about it. Empty: what its header says.
        trigger_words: words that summon it. None: those that its header says.
        training_run: what has made it.
        training_step: of that run, after which it was saved.

    Raises:
        AdapterRefused: it is no adapter that the engine loads.
        FileNotFoundError: there is no such file.
        StillBusy: somebody else is taking it in, for too long.
        StorageFull: the disk is full.
        ValidationError: a field is out of range.
    """
    facts = facts_of_file(file)
    adapter = Adapter(
        name=(name or facts.title or Path(file_name or file.name).stem)[:LONGEST_NAME] or UNNAMED,
        owner=owner,
        description=description or facts.description,
        trigger_words=list(facts.trigger_words) if trigger_words is None else trigger_words,
        training_run=training_run,
        training_step=training_step,
    )
    fill_in(adapter, facts, sha256=sha256_of(file), size_bytes=file.stat().st_size)
    adapter.source = f"{IMPORTED}/{adapter.sha256}{SUFFIX}"
    adapter.full_clean(exclude=["owner", "training_run"], validate_unique=False)
    with storage.alone(turn_of(adapter.sha256)):
        known = Adapter.objects.filter(sha256=adapter.sha256).first()
        if known is None or not has_its_bytes(known):
            target = roots.models_root() / adapter.source
            _place(file, target)
            adapter.file_state = state_of(target)
            if known is not None:
                _note_place(known, adapter.source, adapter.file_state)
        file.unlink(missing_ok=True)
        if known is None:
            known = _insert(adapter)
    return known or adapter, known is None


def update_adapter(adapter: Adapter, **changes: Any) -> Adapter:
    """Change what people may change about an adapter; return it as it is now. Others stay as others left them.

    Raises:
        AdapterGone: somebody deleted it in the meantime.
        TypeError: there is no such field, or it is not for people to change.
        ValidationError: a value is out of range.
    """
    if unknown := changes.keys() - CHANGEABLE:
        raise TypeError(f"Not for people to change: {', '.join(sorted(unknown))}.")
    return _change(adapter, changes)


def set_adapter_preview(adapter: Adapter, image: Image | None) -> Adapter:
    """Choose the image that shows what an adapter does, or none.

    Raises:
        AdapterGone: somebody deleted the adapter in the meantime.
        Invalid: the image is in the trash, or gone.
    """
    if image is not None and not Image.objects.live().filter(pk=image.pk).exists():
        raise Invalid("There is no such image.", pointer="/image", code="does_not_exist")
    return _change(adapter, {"preview": image})


def locate_adapter(adapter: Adapter) -> Path:
    """Return where the file of an adapter is on this machine.

    Raises:
        AdapterMissing: it is not there, lies outside the models root, or has another size than was taken in.
    """
    path = place_of(adapter.source)
    try:
        size = path.stat().st_size if path is not None and path.is_file() else None
    except OSError:
        size = None
    if path is None or size is None:
        raise AdapterMissing(f"The file of the adapter “{adapter}” is not on this machine.")
    if size != adapter.size_bytes:
        raise AdapterMissing(f"The file of the adapter “{adapter}” has changed since it was looked at.")
    return path


def delete_adapter(adapter: Adapter) -> None:
    """Delete an adapter and, if it was imported, its file. Files that operators keep themselves stay.

    Raises:
        InUse: an image or a job that has not ended uses it.
    """
    with transaction.atomic():
        row = Adapter.objects.select_for_update().filter(pk=adapter.pk).first()
        if row is None:
            return
        if reasons := in_use(Adapter, [row.pk]):
            raise InUse(" ".join(sorted(set(reasons.values()))))
        sha256, source = row.sha256, row.source
        row.delete()

        def delete_file() -> None:
            _delete_file(sha256, source)

        transaction.on_commit(delete_file, robust=True)  # the row is gone, whatever becomes of the file


def facts_of_file(file: Path) -> AdapterFacts:
    """Return what the adapter in a file is.

    Raises:
        AdapterRefused: there is none in it that the engine loads.
        FileNotFoundError: there is no such file.
    """
    try:
        return recognise_adapter(read_header(file, scalars_ending=SCALARS))
    except WeightsRefused as refusal:
        raise AdapterRefused(str(refusal), pointer="/file", code=refusal.code) from refusal


def fill_in(adapter: Adapter, facts: AdapterFacts, *, sha256: str, size_bytes: int) -> None:
    """Note what a file says on the row of its adapter."""
    adapter.sha256, adapter.size_bytes = sha256, size_bytes
    adapter.architecture, adapter.layout = facts.family, facts.layout
    adapter.rank, adapter.alpha, adapter.targets = facts.rank, facts.alpha, facts.targets
    adapter.base_model_name = facts.base_model_name


def sha256_of(file: Path) -> str:
    """Return the SHA-256 digest of a whole file, in hexadecimal digits."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def state_of(file: Path) -> str:
    """Return what changes whenever other bytes take the place of a file: told by the file system, without reading it.

    Whoever restores a file with its size and its old date still cannot choose its number and when that was done.
    """
    status = file.stat()
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"


def has_its_bytes(adapter: Adapter) -> bool:
    """Tell whether the bytes of an adapter are where its row says. The file is read, unless it is as it was seen last."""
    path = place_of(adapter.source)
    try:
        if path is None or not path.is_file() or path.stat().st_size != adapter.size_bytes:
            return False
        return adapter.file_state == state_of(path) or adapter.sha256 == sha256_of(path)
    except OSError:
        return False


def turn_of(sha256: str) -> str:
    """Return the key of the turn in which a file and its row appear and go together."""
    return f"adapter:{sha256}"


def _insert(adapter: Adapter) -> Adapter | None:
    """Insert a new row; return the one that is there already, written by somebody whose turn ended before his commit."""
    try:
        with transaction.atomic():
            adapter.save(force_insert=True)
    except IntegrityError:
        known = Adapter.objects.filter(sha256=adapter.sha256).first()
        if known is None:
            raise
        return known
    return None


def _note_place(adapter: Adapter, source: str, file_state: str) -> None:
    """Note where the lost file of an adapter is again."""
    before = {"source": adapter.source}
    adapter.source, adapter.file_state = source, file_state
    with transaction.atomic():
        Adapter.objects.filter(pk=adapter.pk).update(source=source, file_state=file_state)
        audit.record("adapter.restore", adapter, before=before, after={"source": source})


def _delete_file(sha256: str, source: str) -> None:
    """Delete an imported file, unless somebody has imported the same bytes again."""
    path = place_of(source) if source.startswith(f"{IMPORTED}/") else None
    if path is None:
        return
    with storage.alone(turn_of(sha256)):
        if not Adapter.objects.filter(sha256=sha256).exists():
            path.unlink(missing_ok=True)


def _change(adapter: Adapter, changes: dict[str, Any]) -> Adapter:
    with transaction.atomic():
        current = Adapter.objects.select_for_update().filter(pk=adapter.pk).first()
        if current is None:
            raise AdapterGone("The adapter has been deleted.")
        changed = [name for name, value in changes.items() if getattr(current, name) != value]
        for name in changed:
            setattr(current, name, changes[name])
        current.clean_fields(exclude={field.name for field in Adapter._meta.fields} - set(changed))
        if changed:
            current.save(update_fields=changed)
        else:  # that somebody asked for it belongs into the audit trail all the same
            audit.record("adapter.change", current)
    return current


def _place(file: Path, target: Path) -> None:
    """Give a file its place: nothing or all of it is there, whatever dies in between."""
    if problem := lack_of_room(["models"], size_bytes=file.stat().st_size):
        raise storage.StorageFull(problem)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{uuid.uuid4().hex}.part"
    with storage.naming_a_full_disk():
        try:
            _move(file, partial)
            with partial.open("rb+") as written:
                os.fchmod(written.fileno(), FILE_MODE)
                os.fsync(written.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _move(file: Path, partial: Path) -> None:
    try:
        file.rename(partial)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(file, partial)
