"""Which of an image's captions counts."""

import uuid
from collections.abc import Iterable

from albums.batches import in_batches
from albums.models import Image, Label, LabelKind
from albums.services.labels import trust_in

AT_ONCE = 5000


def caption_of(image: Image) -> str | None:
    """Return the caption that a model is trained with: see :func:`captions_of`."""
    return captions_of([image.pk]).get(image.pk)


def captions_of(image_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, str]:
    """Return for each image that has one the caption that a model is trained with.

    That of people; without one, that of an import, then the newest of a model, then that of the page it was found
    on. One query for each few thousand images.
    """
    best: dict[uuid.UUID, tuple[tuple[int, object], str]] = {}
    for batch in in_batches(image_ids, AT_ONCE):
        captions = Label.objects.filter(image__in=batch, kind=LabelKind.CAPTION)
        for pk, text, origin, updated_at in captions.values_list("image_id", "text", "origin", "updated_at"):
            order = (trust_in(origin), updated_at)
            if pk not in best or order > best[pk][0]:
                best[pk] = (order, text)
    return {pk: text for pk, (_, text) in best.items()}


def caption_labels_of(image_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Label]:
    """Return the labels that hold these captions, by the ids of their images."""
    found = Label.objects.filter(image__in=list(image_ids), kind=LabelKind.CAPTION)
    best: dict[uuid.UUID, Label] = {}
    for label in sorted(found, key=lambda label: (trust_in(label.origin), label.updated_at)):
        best[label.image_id] = label
    return best
