"""Changing the captions or tags of many images at once, and taking that back.

What an edit replaces or removes becomes history like everything else, with the edit's name on it: that is all that is
needed to undo it. It is a person who edits: a caption of a model or an import that is changed is theirs from then on.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from albums.batches import in_batches
from albums.models import Image, Label, LabelEdit, LabelKind, LabelOrigin, LabelRevision
from albums.services.captions import caption_labels_of
from albums.services.labels import (
    SAID,
    NewLabel,
    hold_images,
    label_identity,
    revision_of,
    say,
    tag_identity,
)
from albums.services.search import index_words
from imagehub.accounts import audit
from imagehub.errors import Conflict, Invalid, NotReady

MOST_IMAGES = 10_000
"""In one edit. It is done while somebody waits."""

MOST_EXAMPLES = 5

Action = LabelEdit.Action
OF_TAGS = frozenset({Action.ADD_TAG, Action.REMOVE_TAG})


class TooManyToEdit(NotReady):
    code = "too_many_images"
    title = "Too many images for one edit"


class AlreadyUndone(Conflict):
    code = "already_undone"
    title = "The edit has been taken back already"


class NothingToUndo(Conflict):
    code = "nothing_to_undo"
    title = "Nothing is left of the edit"


@dataclass(frozen=True)
class LabelChange:
    """What is to be changed in each image.

    ``prefix`` and ``suffix`` put ``text`` before or behind the caption that training would use, unless it stands there
    already, letter for letter and with the spaces; ``replace`` puts ``replacement`` wherever ``text`` stands in it, letter for letter. ``add_tag`` and
    ``remove_tag`` are about the tag ``text``.

    Raises:
        Invalid: it would do nothing, or says something that cannot be a label.
    """

    action: str
    text: str
    replacement: str = ""

    def __post_init__(self) -> None:
        if self.action not in Action.values:
            raise Invalid("There is no such edit.", pointer="/action")
        if self.action in OF_TAGS:
            tag = NewLabel(uuid.UUID(int=0), LabelKind.TAG, self.text, LabelOrigin.HUMAN)
            object.__setattr__(self, "text", tag.text)
        elif not self.text:
            raise Invalid("It says nothing.", pointer="/text", code="blank")
        if self.replacement and self.action != Action.REPLACE:
            raise Invalid("Only “replace” has a replacement.", pointer="/replacement")
        if self.action == Action.REPLACE and self.replacement == self.text:
            raise Invalid("It is what it replaces.", pointer="/replacement")

    def rewrite(self, caption: str) -> str:
        """Return what becomes of a caption."""
        match self.action:
            case Action.PREFIX:
                # No caption begins or ends with a space.
                return caption if caption.startswith(self.text.lstrip()) else f"{self.text}{caption}"
            case Action.SUFFIX:
                return caption if caption.endswith(self.text.rstrip()) else f"{caption}{self.text}"
            case _:
                return caption.replace(self.text, self.replacement)


@dataclass(frozen=True)
class Example:
    """What an edit does to one image. ``before`` is None where there was nothing, ``after`` where there will be nothing."""

    image: uuid.UUID
    before: str | None
    after: str | None


@dataclass
class Preview:
    """What an edit would do."""

    images: int = 0
    changed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """How many images it cannot change, by why: ``no_caption``, ``blank`` or ``max_length``."""
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class Undone:
    """What came of taking an edit back."""

    restored: int
    kept: int
    """How many labels say something else by now, and stay as they are."""


@dataclass
class _Writing:
    """What becomes of the labels of some images."""

    made: list[Label] = field(default_factory=list)
    changed: list[tuple[Label, NewLabel]] = field(default_factory=list)
    removed: list[Label] = field(default_factory=list)


def preview_edit(image_ids: Iterable[uuid.UUID], change: LabelChange) -> Preview:
    """Tell what an edit of the labels of images would do. The trash is left alone.

    Raises:
        TooManyToEdit: there are more images than one edit may have.
    """
    preview = Preview()
    for batch in in_batches(_wanted(image_ids)):
        there = list(Image.objects.live().filter(pk__in=batch).order_by("pk").values_list("pk", flat=True))
        _plan(there, change, None, preview)
    return preview


def edit_labels(
    image_ids: Iterable[uuid.UUID], change: LabelChange, *, user: AbstractUser | None
) -> tuple[LabelEdit, Preview]:
    """Edit the labels of images, all or none; return the edit, and what it did. The trash is left alone.

    Raises:
        TooManyToEdit: there are more images than one edit may have.
    """
    wanted, done = _wanted(image_ids), Preview()
    with transaction.atomic():
        edit = LabelEdit(
            owner=user,  # type: ignore[misc]
            action=change.action,
            text=change.text,
            replacement=change.replacement,
            images=0,
            changed=0,
        )
        for batch in in_batches(wanted):
            held = hold_images(batch)
            live = Image.objects.live().filter(pk__in=held).order_by("pk").values_list("pk", flat=True)
            writing = _plan(list(live), change, user, done)
            _write(writing, edit, user)
        edit.images, edit.changed = done.images, done.changed
        edit.save(force_insert=True)  # last, as a whole: the constraints of its revisions wait for the end
    return edit, done


def undo_edit(edit: LabelEdit, *, user: AbstractUser | None) -> Undone:
    """Let the labels that an edit has changed say what they said before. What was changed since stays as it is.

    A later edit that was itself taken back has changed nothing: one after the other, edits are undone from the last.

    Raises:
        AlreadyUndone: somebody has taken it back before.
        NothingToUndo: all that it has changed was changed since. It can be taken back once that was.
    """
    with transaction.atomic():
        undone = LabelEdit.objects.filter(pk=edit.pk, undone_at=None).update(
            undone_at=timezone.now(), undone_by=user
        )
        if not undone:
            raise AlreadyUndone("The edit has been taken back already.")
        edit.refresh_from_db()
        wanted = set(edit.revisions.values_list("image_id", flat=True))
        for batch in in_batches(edit.made):
            wanted.update(Label.objects.filter(pk__in=batch).values_list("image_id", flat=True))
        restored = kept = 0
        new = {uuid.UUID(pk) for pk in edit.made}
        for batch in in_batches(sorted(wanted)):
            hold_images(batch)
            done, left = _undo_batch(edit, batch, new, user)
            restored, kept = restored + done, kept + left
        if not restored:
            raise NothingToUndo("Whatever the edit has changed was changed again since.")
        audit.record("labeledit.undo", edit, after={"restored": restored, "kept": kept})
    return Undone(restored, kept)


def _wanted(image_ids: Iterable[uuid.UUID]) -> list[uuid.UUID]:
    wanted = sorted(set(image_ids))
    if len(wanted) > MOST_IMAGES:
        raise TooManyToEdit(f"One edit changes at most {MOST_IMAGES} images; these are {len(wanted)}.")
    return wanted


def _plan(
    image_ids: Sequence[uuid.UUID], change: LabelChange, user: AbstractUser | None, report: Preview
) -> _Writing:
    """Decide what becomes of the labels of images, and count it."""
    report.images += len(image_ids)
    if change.action in OF_TAGS:
        return _plan_tags(image_ids, change, user, report)
    writing = _Writing()
    captions = caption_labels_of(image_ids)
    for pk in image_ids:
        label = captions.get(pk)
        if label is None:
            report.skipped["no_caption"] += 1
            continue
        text = change.rewrite(label.text)
        if text == label.text:
            continue
        try:
            row = NewLabel(pk, LabelKind.CAPTION, text, LabelOrigin.HUMAN, user=user)
        except Invalid as error:
            report.skipped[error.code] += 1
            continue
        if row.text != label.text:
            writing.changed.append((label, row))
            _count(report, pk, label.text, row.text)
    return writing


def _plan_tags(
    image_ids: Sequence[uuid.UUID], change: LabelChange, user: AbstractUser | None, report: Preview
) -> _Writing:
    writing = _Writing()
    tags = Label.objects.filter(image__in=image_ids, kind=LabelKind.TAG, identity=tag_identity(change.text))
    there = {label.image_id: label for label in tags}
    for pk in image_ids:
        label = there.get(pk)
        if change.action == Action.REMOVE_TAG:
            if label is not None:
                writing.removed.append(label)
                _count(report, pk, label.text, None)
        elif label is None:
            row = NewLabel(pk, LabelKind.TAG, change.text, LabelOrigin.HUMAN, user=user)
            label = Label(image_id=pk, kind=LabelKind.TAG)
            say(label, row)
            writing.made.append(label)
            _count(report, pk, None, label.text)
        elif label.origin != LabelOrigin.HUMAN:  # a person who repeats a model's tag takes it over
            row = NewLabel(pk, LabelKind.TAG, label.text, LabelOrigin.HUMAN, user=user)
            writing.changed.append((label, row))
            _count(report, pk, label.text, row.text)
    return writing


def _count(report: Preview, image: uuid.UUID, before: str | None, after: str | None) -> None:
    report.changed += 1
    if len(report.examples) < MOST_EXAMPLES:
        report.examples.append(Example(image, before, after))


def _write(writing: _Writing, edit: LabelEdit, user: AbstractUser | None) -> None:
    replaced, removed = LabelRevision.Change.REPLACED, LabelRevision.Change.REMOVED
    LabelRevision.objects.bulk_create(
        [
            *(revision_of(label, replaced, by=user, edit=edit) for label, _ in writing.changed),
            *(revision_of(label, removed, by=user, edit=edit) for label in writing.removed),
        ]
    )
    for label, row in writing.changed:
        say(label, row)
    _save([label for label, _ in writing.changed])
    _delete(writing.removed)
    Label.objects.bulk_create(writing.made)
    edit.made += [str(label.pk) for label in writing.made]
    index_words(
        {label.image_id for label in (*writing.made, *writing.removed, *(one for one, _ in writing.changed))}
    )


def _save(labels: Sequence[Label]) -> None:
    if labels:
        Label.objects.bulk_update(labels, [*SAID, "identity", "created_by", "updated_at"])


def _delete(labels: Sequence[Label]) -> None:
    # Without signals, which would write an entry into the audit trail for each: the edit is one.
    Label.objects.filter(pk__in=[label.pk for label in labels])._raw_delete(using=Label.objects.db)


def _undo_batch(
    edit: LabelEdit, image_ids: Sequence[uuid.UUID], made: set[uuid.UUID], user: AbstractUser | None
) -> tuple[int, int]:
    """Undo an edit of some images; return of how many labels, and how many were changed since."""
    labels = Label.objects.filter(image__in=image_ids).in_bulk()
    taken = {(label.image_id, label.kind, label.identity): label.pk for label in labels.values()}
    latest = dict(
        LabelRevision.objects.filter(image__in=image_ids, is_undone=False)
        .values_list("label_id")
        .annotate(latest=Max("pk"))
        .order_by()
    )
    revisions: list[LabelRevision] = []
    undone: list[int] = []
    changed, back, gone, kept = [], [], [], 0
    for revision in edit.revisions.filter(image__in=image_ids).select_related("written_by"):
        label = labels.get(revision.label_id)
        identity = label_identity(revision.kind, revision.text, revision.origin, revision.model)
        holder = taken.get((revision.image_id, revision.kind, identity), revision.label_id)
        is_ours = latest[revision.label_id] == revision.pk
        is_there = (label is not None) == (revision.change == LabelRevision.Change.REPLACED)
        if not is_ours or not is_there or holder != revision.label_id:
            kept += 1
            continue
        undone.append(revision.pk)
        if label is None:
            label = Label(
                pk=revision.label_id,
                image_id=revision.image_id,
                kind=revision.kind,
                created_at=revision.made_at or revision.written_at,
            )
            back.append(label)
        else:
            revisions.append(revision_of(label, LabelRevision.Change.REPLACED, by=user))
            changed.append(label)
        _restore(label, revision, identity)
    for label in labels.values():
        if label.pk in made:
            if label.pk in latest:
                kept += 1
            else:
                revisions.append(revision_of(label, LabelRevision.Change.REMOVED, by=user))
                gone.append(label)
    for one in revisions:
        one.is_undone = True
    LabelRevision.objects.bulk_create(revisions)
    LabelRevision.objects.filter(pk__in=undone).update(is_undone=True)
    _delete(gone)
    since = {label.pk: label.updated_at for label in back}
    Label.objects.bulk_create(back)  # which takes now for the time of the change
    for label in back:
        label.updated_at = since[label.pk]
    _save([*changed, *back])
    index_words({label.image_id for label in (*changed, *back, *gone)})
    return len(changed) + len(back) + len(gone), kept


def _restore(label: Label, revision: LabelRevision, identity: str) -> None:
    for name in SAID:
        setattr(label, name, getattr(revision, name))
    label.identity = identity
    label.created_by = revision.written_by
    label.updated_at = revision.written_at  # it is as old as what it says: of two by models, the newer counts
