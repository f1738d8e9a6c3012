"""Taking what a crawl has fetched into the library: by the same way as uploads, and all rows of a batch at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from django.db import transaction

from albums.decoding import UnsupportedPicture
from albums.models import Album, AlbumImage, Image, LabelKind, LabelOrigin
from albums.services import (
    AlbumGone,
    NewLabel,
    add_images_to_album,
    contents_taken_down,
    create_album,
    put_labels,
    remember_looks,
    request_derivatives,
    save_images,
)
from albums.services.albums import lock_album
from albums.services.file_names import safe_file_name
from albums.services.images import SUFFIXES
from albums.services.uploads import IncomingFile, quarantine, store_pictures, vet_pictures
from imagehub.errors import Invalid
from scraping.models import ImageOutcome, ScrapedImage, ScrapeJob
from scraping.services.comparing import is_left_out, look_of, note_lookalikes, note_lookalikes_among
from scraping.services.folders import folder_of

LABEL_ORIGINS = ("figcaption", "json-ld", "alt", "title", "aria-label", "sitemap")
"""Texts that say what a picture shows, the most telling first. Others, such as those of links, say too little."""

CHANGED = [
    "state", "reason", "image", "resembles", "sha256", "size_bytes", "width", "height", "format", "fingerprint",
    "duplicate_of", "page_url", "page_domain", "origin", "final_url", "redirects", "status", "robots", "opt_out", "licence", "captions", "attempts",
    "fetched_at",
]  # fmt: skip
"""What may become different about an address that has a row."""


LookedAt = Mapping[str, IncomingFile]
"""Files that were vetted, by the keys of their items."""


@contextmanager
def look_at(job: ScrapeJob, items: Sequence[ScrapedImage]) -> Iterator[LookedAt]:
    """Vet the files of those items that are to be taken in. What is made of them is there until the block ends.

    Raises:
        StorageFull: the disk is full.
    """
    wanted = [item for item in items if item.state == ImageOutcome.SAVED]
    files = {item.key: _incoming(job, item) for item in wanted}
    with quarantine() as staging:
        vet_pictures(list(files.values()), staging=staging)
        yield files


def look_and_take_in(
    job: ScrapeJob, items: Sequence[ScrapedImage], *, fence: Callable[[], None] = lambda: None
) -> None:
    """Do both: see :func:`look_at` and :func:`take_in`."""
    with look_at(job, items) as looked_at:
        take_in(job, items, looked_at, fence=fence)


def take_in(
    job: ScrapeJob, items: Sequence[ScrapedImage], looked_at: LookedAt, *, fence: Callable[[], None]
) -> None:
    """Take vetted pictures into the library and the album of their crawl, and write all rows in one transaction.

    What became of each stands on it then: ``saved`` with its image, ``duplicate`` with the one that was there, or ``filtered``,
    also where the same picture was taken down (``taken_down``). A saved one may resemble another image: somebody has to choose.
    Items that have come to another end are only written down. Rows may be new or not. Not to be called with a transaction open.

    Args:
        job: whose they are.
        items: of one crawl.
        looked_at: what :func:`look_at` has for them.
        fence: is called in the transaction, and raises where nothing may be written any more.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        StorageFull: the disk is full.
    """
    wanted = {item.key: item for item in items if item.state == ImageOutcome.SAVED}
    files = {key: looked_at[key] for key in wanted}
    as_large = note_lookalikes(job, list(wanted.values()))
    kept = {key: file for key, file in files.items() if not is_left_out(wanted[key], file, as_large)}
    by_path = {file.path: wanted[key] for key, file in kept.items()}
    store_pictures(list(kept.values()), new_image=lambda file: _new_image(job, by_path[file.path]))
    for key, file in files.items():
        if file.refusal:
            wanted[key].state, wanted[key].reason = ImageOutcome.FILTERED, file.refusal.code[:40]
            wanted[key].resembles = None
    pairs = [(wanted[key], file.image) for key, file in kept.items() if file.image]
    with transaction.atomic():
        if pairs:
            _hold_album(job)
        fence()
        _write(job, pairs)
        _note(job, items)


def _hold_album(job: ScrapeJob) -> None:
    """Lock the album of a crawl, if it has one, before the crawl's own row: whoever deletes the album does it so."""
    job.refresh_from_db(fields=["album", "album_name"])
    if job.album is not None:
        try:
            lock_album(job.album)
        except AlbumGone:
            job.refresh_from_db(fields=["album"])


def _note(job: ScrapeJob, items: Sequence[ScrapedImage]) -> None:
    """Write items down, and count what the crawl has saved."""
    _link_duplicates(job, items)
    new, known = [item for item in items if item._state.adding], [item for item in items if item.pk]
    ScrapedImage.objects.bulk_update(known, CHANGED)
    ScrapedImage.objects.bulk_create(new)
    if job.needs_review:
        _tell_duplicates(job, items)
    job.images_saved = ScrapedImage.objects.filter(job=job, state=ImageOutcome.SAVED).count()
    ScrapeJob.objects.filter(pk=job.pk).update(images_saved=job.images_saved)


def _incoming(job: ScrapeJob, item: ScrapedImage) -> IncomingFile:
    path = folder_of(job).pictures / item.file_name
    if not path.is_file():  # deleted by something outside
        gone = UnsupportedPicture("The file is gone.", code="file_gone")
        return IncomingFile(path, _name_of(item), refusal=gone)
    return IncomingFile(path, _name_of(item))


def _name_of(item: ScrapedImage) -> str:
    """Return what the file was called where it was found, with the ending of what is in it."""
    name = unquote(urlsplit(item.url).path.rpartition("/")[2]).rpartition(".")[0]
    return safe_file_name(f"{name or item.sha256[:12]}.{SUFFIXES[item.format]}")


def _new_image(job: ScrapeJob, item: ScrapedImage) -> Image:
    return Image(
        owner=job.owner,
        visibility=job.visibility,
        source_kind=Image.SourceKind.SCRAPE,
        source_id=job.pk,
        source_index=item.position,
    )


def _write(job: ScrapeJob, pairs: Sequence[tuple[ScrapedImage, Image]]) -> None:
    """Insert the images that are new, and append them and those that were there to the album. None that was taken down."""
    # Known by the bytes that the library had, or, if it never came so far, by those that were fetched.
    barred = contents_taken_down(sha256 for item, image in pairs for sha256 in (image.sha256, item.sha256))
    wanted = []
    for item, image in pairs:
        if barred.isdisjoint((image.sha256, item.sha256)):
            wanted.append((item, image))
        else:
            item.state, item.reason = ImageOutcome.FILTERED, "taken_down"
            item.resembles = None
    pairs = wanted
    if not pairs:
        return
    album = _album_of(job)
    there = _images_by_content({image.sha256 for _, image in pairs})
    in_album = set(
        AlbumImage.objects.filter(album=album, image__in=there.values()).values_list("image", flat=True)
    )
    new: dict[str, Image] = {}
    placed: list[Image] = []
    for item, image in pairs:
        known = there.get(image.sha256) or new.get(image.sha256)
        if known is None:
            item.image = new[image.sha256] = image
        else:
            is_in_album = known.pk in in_album or image.sha256 in new
            item.state, item.reason = ImageOutcome.DUPLICATE, "in_album" if is_in_album else "in_library"
            item.image, item.resembles = known, None
            if not is_in_album:
                placed.append(known)
    save_images(list(new.values()), album=album)
    if placed:
        add_images_to_album(album, placed)
    taken = [item for item, image in pairs if item.image_id == image.pk]
    remember_looks((item.image, look) for item in taken if item.image and (look := look_of(item)))
    note_lookalikes_among(taken)
    put_labels(label for item in taken for label in _labels_of(job, item))
    request_derivatives(image.pk for image in new.values())


def raise_if_album_is_gone(job: ScrapeJob) -> None:
    """Check that the album of a crawl that goes on is there still, or is to be made now.

    Whoever deletes it in the meantime has no use for what else would come, and is not to meet it again under the same name.

    Raises:
        AlbumGone: somebody deleted it.
    """
    if job.album_id is None and not job.is_finished and not job.album_name:
        raise AlbumGone("The album of the crawl has been deleted.")


def _album_of(job: ScrapeJob) -> Album:
    """Return the album of a crawl; made now, if it is to be a new one and nobody has needed it yet.

    What was approved after the crawl had ended comes into a new one as well, if that of the crawl was deleted.

    Raises:
        AlbumGone: see :func:`raise_if_album_is_gone`.
    """
    raise_if_album_is_gone(job)
    if job.album is None:
        job.album = create_album(
            Album(
                name=job.album_name or job.name,
                description=job.description,
                kind=Album.Kind.SCRAPE,
                visibility=job.visibility,
                owner=job.owner,
            )
        )
        job.album_name = ""  # it is not to be made again, should somebody delete it
        ScrapeJob.objects.filter(pk=job.pk).update(album=job.album, album_name="")
    return job.album


def _images_by_content(contents: Iterable[str]) -> dict[str, Image]:
    """Return the oldest image with each of some contents that is not in the trash."""
    rows = Image.objects.live().filter(sha256__in=list(contents)).order_by("-created_at", "-id")
    return {image.sha256: image for image in rows}


def _link_duplicates(job: ScrapeJob, items: Sequence[ScrapedImage]) -> None:
    """Let each address whose picture was there already know the image."""
    waiting = [item for item in items if item.state == ImageOutcome.DUPLICATE and item.image_id is None]
    if not waiting:
        return
    same_job = _images_of({item.duplicate_of for item in waiting if item.duplicate_of}, "sha256", job=job)
    same_job |= {item.sha256: item.image_id for item in items if item.image_id and item.sha256}
    in_album = _images_of({item.duplicate_of for item in waiting}, "sha256", job__album=job.album_id)
    seen = _images_of({item.key for item in waiting if item.reason == "seen"}, "key", job__album=job.album_id)
    for item in waiting:
        item.image_id = (
            same_job.get(item.duplicate_of) or in_album.get(item.duplicate_of) or seen.get(item.key)
        )


def _tell_duplicates(job: ScrapeJob, items: Sequence[ScrapedImage]) -> None:
    """Let addresses whose picture waited for review, under another address, know the image that was made of it now."""
    images = {item.sha256: item.image_id for item in items if item.image_id and item.sha256}
    rows = ScrapedImage.objects.filter(
        job=job, state=ImageOutcome.DUPLICATE, image=None, duplicate_of__in=images
    )
    for row in (known := list(rows)):
        row.image_id = images[row.duplicate_of]
    ScrapedImage.objects.bulk_update(known, ["image"])


def _images_of(values: set[str], column: str, **where: Any) -> dict[str, Any]:
    rows = ScrapedImage.objects.filter(**{f"{column}__in": values - {""}}, image__isnull=False, **where)
    return dict(rows.values_list(column, "image"))


def _labels_of(job: ScrapeJob, item: ScrapedImage) -> list[NewLabel]:
    """Return what its page says about a picture: one caption, the most telling of its texts."""
    said = {one.get("origin"): one.get("text", "") for one in reversed(item.captions)}
    for origin in LABEL_ORIGINS:
        if said.get(origin) and item.image_id:
            try:
                return [
                    NewLabel(
                        item.image_id, LabelKind.CAPTION, said[origin], LabelOrigin.SCRAPE, user=job.owner
                    )
                ]
            except Invalid:  # nothing but what cannot be shown
                continue
    return []
