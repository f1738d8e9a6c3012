"""Pictures of a crawl that look like others: left out where the album has one as large, else noted for somebody to choose."""

import hashlib
import uuid
from collections.abc import Sequence

from django.db.models import F

from albums.models import Image
from albums.services import lookalikes
from albums.services.uploads import IncomingFile
from albums.similarity import Fingerprint, near_duplicates
from scraping.models import ImageOutcome, ScrapedImage, ScrapeJob

NEAR_DUPLICATE = "near_duplicate"


def look_of(item: ScrapedImage) -> Fingerprint | None:
    """Return how a picture looks, or None where its crawler has not told."""
    try:
        return Fingerprint.parse(item.fingerprint)
    except ValueError:
        return None


def note_lookalikes(job: ScrapeJob, items: Sequence[ScrapedImage]) -> dict[str, uuid.UUID]:
    """Note on pictures that are not in the library yet which image they resemble: one of their album, or else any.

    Returns, by the keys of the pictures, the images of the album that are at least as large. What is noted already was shown to
    somebody who wants the picture, and is not looked up again.
    """
    prints = {item.key: look for item in items if item.resembles_id is None and (look := look_of(item))}
    if not prints:
        return {}
    in_album = lookalikes(prints, album=job.album_id) if job.album_id else {}
    anywhere = lookalikes({key: look for key, look in prints.items() if key not in in_album})
    rows = Image.objects.filter(pk__in=set(in_album.values()))
    areas = dict(rows.values_list("pk", F("width") * F("height")))
    as_large = {}
    for item in items:
        if item.key in prints:
            inside = in_album.get(item.key)
            item.resembles_id = inside or anywhere.get(item.key)
            if inside and areas.get(inside, -1) >= item.width * item.height:
                as_large[item.key] = inside
    return as_large


def is_left_out(item: ScrapedImage, file: IncomingFile, as_large: dict[str, uuid.UUID]) -> bool:
    """Tell whether a vetted picture is not taken because of one that looks the same, and note it.

    The same bytes are not meant: they are found when the rows are written, with the image that has them.
    """
    if file.vetted is None or item.key not in as_large:
        return False
    with file.vetted.path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if Image.objects.live().filter(sha256=sha256).exists():
        return False
    item.state, item.reason = ImageOutcome.DUPLICATE, NEAR_DUPLICATE
    item.image_id, item.resembles_id = as_large[item.key], None
    return True


def note_lookalikes_among(items: Sequence[ScrapedImage]) -> None:
    """Note on pictures that were just taken in which of those before them they resemble: the largest.

    The crawler has left out those that came after a larger one; of these, the later one is the larger one.
    """
    by_key = {item.key: item for item in items}
    looks = {key: look for key, item in by_key.items() if (look := look_of(item))}
    for group in near_duplicates(looks):
        for place, key in enumerate(group):
            before = [by_key[other] for other in group[:place] if looks[key].resembles(looks[other])]
            if before and by_key[key].resembles_id is None:
                largest = max(before, key=lambda other: other.width * other.height)
                by_key[key].resembles_id = largest.image_id
