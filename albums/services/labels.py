"""Everything that writes labels. What people say goes before what anybody else says, and nothing is lost.

Whoever writes the labels of an image holds the lock of its row: two at once come one after the other.
"""

import unicodedata
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.utils import timezone

from albums.batches import in_batches
from albums.models import Image, Label, LabelEdit, LabelKind, LabelOrigin, LabelRevision
from albums.models.labels import LONGEST_CAPTION, LONGEST_TAG
from albums.services.bulk import lock_images
from albums.services.search import index_words
from imagehub.accounts import audit
from imagehub.errors import Conflict, Invalid

BATCH = 500
"""How many labels are written by one round of queries."""

BELIEVED: dict[str, int] = {
    LabelOrigin.SCRAPE: 0,
    LabelOrigin.MODEL: 1,
    LabelOrigin.IMPORT: 2,
    LabelOrigin.HUMAN: 3,
}
"""Whose word goes before whose."""

SAID = ("text", "origin", "model", "confidence")
LONGEST_IDENTITY = Label._meta.get_field("identity").max_length or 0
LONGEST_MODEL = Label._meta.get_field("model").max_length or 0


class ImageGone(Conflict):
    code = "image_gone"
    title = "The image has been deleted"


class LabelGone(Conflict):
    code = "label_gone"
    title = "The label has been removed"


class LabelExists(Conflict):
    code = "label_exists"
    title = "The image has this label already"


@dataclass(frozen=True)
class NewLabel:
    """What somebody says about an image. One that is made can be written.

    Raises:
        Invalid: it is empty or too long, a model has no name, or a confidence is not between 0 and 1.
    """

    image_id: uuid.UUID
    kind: str
    text: str
    origin: str
    model: str = ""
    confidence: float | None = None
    user: AbstractUser | None = None
    replace_human: bool = False
    """Whether what a person says gives way. What it said stays in the history."""
    created_at: datetime | None = None
    """When it was first said, where that is known from elsewhere."""
    label_id: uuid.UUID | None = None
    """The id that the label gets if it is new."""

    def __post_init__(self) -> None:
        if self.kind not in LabelKind.values:
            raise Invalid("A label is a caption or a tag.", pointer="/kind")
        if self.origin not in LabelOrigin.values:
            raise Invalid("Nobody of this kind says anything.", pointer="/origin")
        object.__setattr__(self, "text", _clean_text(self.text, self.kind))
        object.__setattr__(self, "model", _clean_model(self.model, self.origin))
        if len(self.identity) > LONGEST_IDENTITY:
            raise Invalid(f"A tag has at most {LONGEST_TAG} characters.", pointer="/text", code="max_length")
        if self.confidence is not None and not 0 <= self.confidence <= 1:  # NaN is in no range
            raise Invalid("A confidence lies between 0 and 1.", pointer="/confidence", code="out_of_range")

    @property
    def identity(self) -> str:
        """What makes it the same label: see :func:`label_identity`."""
        return label_identity(self.kind, self.text, self.origin, self.model)

    @property
    def is_human(self) -> bool:
        return self.origin == LabelOrigin.HUMAN


def label_identity(kind: str, text: str, origin: str, model: str) -> str:
    """Return what makes a label the same one: the words of a tag, the source of a caption."""
    if kind == LabelKind.TAG:
        return tag_identity(text)
    return f"{origin}:{model}" if origin == LabelOrigin.MODEL else origin


def tag_identity(text: str) -> str:
    """Return what equal tags have in common: their text without case, spacing and ways of encoding it."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def put_label(
    image: Image,
    kind: str,
    text: str,
    origin: str,
    *,
    model: str = "",
    confidence: float | None = None,
    user: AbstractUser | None = None,
    replace_human: bool = False,
) -> Label:
    """Say something about an image, and return the label as it stands now; ``is_new`` tells whether it was made.

    An image has one caption of each source and each tag once, so that saying it again changes what is there; what
    it said before becomes history. A tag that somebody said who is believed more stays as it is: people go before
    imports, those before models, and models before pages. A person who repeats a model's tag takes it over.

    Args:
        image: what it is about.
        kind: a :class:`LabelKind`.
        text: what is said.
        origin: a :class:`LabelOrigin`: who says so.
        model: name and version of a model; an import may name the one that its text came from.
        confidence: 0 to 1, of models and imports.
        user: who wrote it, or who let a program do so.
        replace_human: whether what a person said, the caption or the equal tag, gives way.

    Raises:
        ImageGone: somebody deleted the image in the meantime.
        Invalid: see :class:`NewLabel`.
    """
    new = NewLabel(image.pk, kind, text, origin, model, confidence, user, replace_human)
    labels = put_labels([new])
    if not labels:
        raise ImageGone("The image has been deleted.")
    return labels[0]


def put_labels(rows: Iterable[NewLabel]) -> list[Label]:
    """Do what :func:`put_label` does for many, all or none. Returns the labels in the order of the rows.

    What is said about images that are gone is left out. Each batch costs the same few queries.
    """
    rows = list(rows)
    with transaction.atomic():
        images = hold_images({row.image_id for row in rows})  # all before the first: rows come in any order
        rows = [row for row in rows if row.image_id in images]
        return [label for batch in in_batches(rows, BATCH) for label in _put_batch(batch)]


def change_label(label: Label, *, user: AbstractUser | None, text: str) -> Label:
    """Let a person put something else in a label, which is theirs from then on. What it said becomes history.

    Raises:
        Invalid: the text is empty or too long.
        LabelExists: people have a caption of this image already, or it has this tag.
        LabelGone: somebody removed the label in the meantime.
    """
    new = NewLabel(label.image_id, label.kind, text, LabelOrigin.HUMAN, user=user)
    with transaction.atomic():
        label = _lock_label(label)
        if _says_the_same(label, new):
            return label
        same = Label.objects.filter(image=label.image_id, kind=label.kind, identity=new.identity)
        if same.exclude(pk=label.pk).exists():
            what = "a caption by people" if label.kind == LabelKind.CAPTION else "this tag"
            raise LabelExists(f"The image has {what} already.")
        revision_of(label, LabelRevision.Change.REPLACED, by=user).save(force_insert=True)
        say(label, new)
        label.save()
        index_words([label.image_id])
    return label


def remove_label(label: Label, *, user: AbstractUser | None) -> None:
    """Take a label away. What it said becomes history.

    Raises:
        LabelGone: somebody was faster.
    """
    with transaction.atomic():
        label = _lock_label(label)
        revision_of(label, LabelRevision.Change.REMOVED, by=user).save(force_insert=True)
        image_id = label.image_id
        label.delete()
        index_words([image_id])


def changes(label: Label, row: NewLabel) -> bool:
    """Tell whether a label gives way to somebody who says the same tag, or is the same source, once more."""
    gives_way = row.replace_human and label.origin == LabelOrigin.HUMAN
    if not gives_way and trust_in(label.origin) > trust_in(row.origin):
        return False
    return not _says_the_same(label, row)


@dataclass
class _Batch:
    """What a round of queries will write."""

    made: list[Label] = field(default_factory=list)
    changed: dict[uuid.UUID, Label] = field(default_factory=dict)
    revisions: list[LabelRevision] = field(default_factory=list)
    gone: dict[uuid.UUID, Label] = field(default_factory=dict)
    said_before: dict[uuid.UUID, dict[str, object]] = field(default_factory=dict)

    @property
    def image_ids(self) -> set[uuid.UUID]:
        return {label.image_id for label in [*self.made, *self.changed.values(), *self.gone.values()]}


_Key = tuple[uuid.UUID, str, str]


def _put_batch(rows: Sequence[NewLabel]) -> list[Label]:
    there = _labels_there(rows)
    batch = _Batch()
    labels = [_put(row, there, batch) for row in rows]
    _write(batch)
    return labels


def _labels_there(rows: Sequence[NewLabel]) -> dict[_Key, Label]:
    identities = {row.identity for row in rows} | {LabelOrigin.HUMAN.value}
    found = Label.objects.filter(image__in={row.image_id for row in rows}, identity__in=identities)
    return {(label.image_id, label.kind, label.identity): label for label in found}


def _put(row: NewLabel, there: dict[_Key, Label], batch: _Batch) -> Label:
    """Decide what becomes of one row, given what is there and what those before it will write."""
    if row.replace_human and row.kind == LabelKind.CAPTION and not row.is_human:
        human = there.pop((row.image_id, LabelKind.CAPTION, LabelOrigin.HUMAN), None)
        if human is not None:
            _give_way(human, row, batch)
    key = (row.image_id, row.kind, row.identity)
    label = there.get(key)
    if label is None:
        label = there[key] = Label(image_id=row.image_id, kind=row.kind)
        label.pk = row.label_id or label.pk
        label.created_at = row.created_at or label.created_at
        label.is_new, label.has_changed = True, False
        say(label, row)
        batch.made.append(label)
        return label
    label.is_new, label.has_changed = getattr(label, "is_new", False), getattr(label, "has_changed", False)
    if not changes(label, row):
        return label
    label.has_changed = not label.is_new
    batch.revisions.append(revision_of(label, LabelRevision.Change.REPLACED, by=row.user))
    if not label.is_new:
        batch.said_before.setdefault(label.pk, _said(label))
        batch.changed[label.pk] = label
    say(label, row)
    return label


def _give_way(human: Label, row: NewLabel, batch: _Batch) -> None:
    batch.revisions.append(revision_of(human, LabelRevision.Change.REPLACED, by=row.user))
    batch.changed.pop(human.pk, None)
    if human in batch.made:
        batch.made.remove(human)
    else:
        batch.gone[human.pk] = human


def _write(batch: _Batch) -> None:
    if not batch.image_ids:
        return
    LabelRevision.objects.bulk_create(batch.revisions)
    if batch.gone:
        Label.objects.filter(pk__in=batch.gone).delete()
    Label.objects.bulk_create(batch.made)
    if batch.changed:
        Label.objects.bulk_update(
            batch.changed.values(), [*SAID, "created_by", "updated_at"], batch_size=BATCH
        )
    index_words(batch.image_ids)
    if audit.is_change_by_user():
        _record(batch)


def _record(batch: _Batch) -> None:
    """Write to the audit trail what signals do not see. What gave way they do see."""
    made, changed = batch.made, batch.changed.values()
    if len(made) + len(changed) > 1:
        counts = {"created": len(made), "changed": len(changed), "images": len(batch.image_ids)}
        audit.record("label.write", after=counts)
        return
    for label in made:
        audit.record("label.create", label, after={"kind": label.kind} | _said(label))
    for label in changed:
        audit.record("label.change", label, before=batch.said_before[label.pk], after=_said(label))


def hold_images(image_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Take the locks of images in their order, on SQLite that of the database; return which are there.

    It is the lock that a change of the image's own columns takes: nobody collects its words between our reading
    the labels and our writing them.
    """
    return set(lock_images(Image.objects.all(), sorted(set(image_ids))))


def _lock_label(label: Label) -> Label:
    hold_images([label.image_id])
    found = Label.objects.filter(pk=label.pk).first()
    if found is None:
        raise LabelGone("The label has been removed.")
    return found


def _said(label: Label) -> dict[str, object]:
    return {name: getattr(label, name) for name in SAID}


def _says_the_same(label: Label, row: NewLabel) -> bool:
    return all(getattr(label, name) == getattr(row, name) for name in SAID)


def say(label: Label, row: NewLabel) -> None:
    """Put something else into a label, unsaved."""
    for name in SAID:
        setattr(label, name, getattr(row, name))
    label.identity = row.identity
    label.created_by = row.user  # type: ignore[assignment]
    label.updated_at = timezone.now()


def revision_of(
    label: Label, change: str, *, by: AbstractUser | None, edit: LabelEdit | None = None
) -> LabelRevision:
    """Return what a label says now, to be kept when it changes; unsaved."""
    return LabelRevision(
        image_id=label.image_id,
        label_id=label.pk,
        change=change,
        kind=label.kind,
        made_at=label.created_at,
        written_at=label.updated_at,
        written_by_id=label.created_by_id,
        changed_by=by,  # type: ignore[misc]
        edit=edit,
        **_said(label),
    )


def trust_in(origin: str) -> int:
    """Return how much somebody is believed: more than whom this is less for."""
    return BELIEVED[LabelOrigin(origin)]


def _clean_text(text: str, kind: str) -> str:
    if "\0" in text or not _is_encodable(text):
        raise Invalid("It contains something that is no character.", pointer="/text")
    is_tag = kind == LabelKind.TAG
    text = " ".join(text.split()) if is_tag else text.strip()
    longest = LONGEST_TAG if is_tag else LONGEST_CAPTION
    if not text or (is_tag and not tag_identity(text)):
        raise Invalid("It says nothing.", pointer="/text", code="blank")
    if len(text) > longest:
        raise Invalid(f"A {kind} has at most {longest} characters.", pointer="/text", code="max_length")
    return text


def _clean_model(model: str, origin: str) -> str:
    model = model.strip()
    if origin == LabelOrigin.MODEL and not model:
        raise Invalid("A model that says something has a name.", pointer="/model", code="required")
    if model and origin not in {LabelOrigin.MODEL, LabelOrigin.IMPORT}:
        raise Invalid("Only models and imports name a model.", pointer="/model")
    if len(model) > LONGEST_MODEL or "\0" in model or not _is_encodable(model):
        raise Invalid(f"A model's name has at most {LONGEST_MODEL} characters.", pointer="/model")
    return model


def _is_encodable(text: str) -> bool:
    """Tell whether there is no half of a surrogate pair in it, which PostgreSQL does not store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
