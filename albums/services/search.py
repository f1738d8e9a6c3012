"""Keeping the words of images (:class:`albums.models.ImageText`) true to what is said about them."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence

from albums.models import Image, ImageText, Label
from albums.words import document_of


def index_new_images(images: Sequence[Image]) -> None:
    """Write down the words of images that have just been inserted, of which nobody has said anything else yet."""
    ImageText.objects.bulk_create(
        ImageText(image_id=image.pk, document=document_of(image.name, image.prompt)) for image in images
    )


def index_words(image_ids: Iterable[uuid.UUID]) -> None:
    """Collect the words of images again.

    To be called in the transaction of every change to a name, prompt or label, after the change. Costs four queries
    however many images there are.
    """
    ids = list(image_ids)
    said: dict[uuid.UUID, list[str]] = defaultdict(list)
    for pk, text in (
        Label.objects.filter(image__in=ids).order_by("kind", "pk").values_list("image_id", "text")
    ):
        said[pk].append(text)
    rows = Image.objects.filter(pk__in=ids).values_list("pk", "name", "prompt")
    names = {pk: (name, prompt) for pk, name, prompt in rows}
    # In the order given, which is the order of arrival of those that are new.
    texts = [
        ImageText(image_id=pk, document=document_of(*names[pk], *said[pk]))
        for pk in dict.fromkeys(ids)
        if pk in names
    ]
    ImageText.objects.bulk_create(
        texts, update_conflicts=True, unique_fields=["image"], update_fields=["document"]
    )
