"""Taking in pictures of strangers: vetted one by one, stored, and written down all at once."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from django.db import transaction

from albums.decoding import PictureRefused, VettedPicture, vet
from albums.models import Album, Image
from albums.services.derivatives import request_derivatives
from albums.services.file_names import title_of
from albums.services.images import SUFFIXES, save_images
from albums.thumbnails import default_size, thumbnail_name
from imagehub import storage
from imagehub.config import get_config

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class IncomingFile:
    """A file as it came, in quarantine, and what becomes of it: an image, or a refusal."""

    path: Path
    name: str
    """What its sender calls it, made harmless by :func:`albums.services.file_names.safe_file_name`."""
    content_type: str = ""
    """The type that its sender declares."""
    refusal: PictureRefused | None = None
    """Why it is not taken. Who received it may have refused it already."""
    image: Image | None = None
    """Saved once :func:`take_in_pictures` returns."""
    vetted: VettedPicture | None = field(default=None, repr=False)


@contextmanager
def quarantine() -> Iterator[Path]:
    """Make a folder that nobody else can read, and delete it however the block ends.

    What a killed process leaves is swept with all that is stale in the staging area.
    """
    name = f"upload-{uuid.uuid4().hex}"
    try:
        yield storage.staging_dir(name)
    finally:
        storage.delete_staging_dir(name)


def take_in_pictures(
    files: Sequence[IncomingFile],
    *,
    staging: Path,
    new_image: Callable[[IncomingFile], Image],
    album: Album | None = None,
    all_or_nothing: bool = False,
) -> None:
    """Vet files, store what passes, and write all rows in one transaction. What became of each stands on it.

    The files come first: whatever dies in between leaves files without rows, which are swept daily, and never a row
    without a file. Not to be called with a transaction open.

    Args:
        files: what came in.
        staging: a folder of the caller's for what is made of them.
        new_image: returns the unsaved image of an accepted file. Its names and all about its file are filled in here.
        album: where they are appended.
        all_or_nothing: whether one refusal is enough to store none.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        StorageFull: the disk is full.
    """
    vet_pictures(files, staging=staging)
    if all_or_nothing and any(file.refusal for file in files):
        return
    images = store_pictures(files, new_image=new_image)
    if images:
        with transaction.atomic():
            save_images(images, album=album)
            request_derivatives(image.pk for image in images)


def vet_pictures(files: Sequence[IncomingFile], *, staging: Path) -> None:
    """Check files that nobody has refused yet, as many at once as there are decoders, and note what came of it.

    Raises:
        StorageFull: the disk is full.
    """

    def look_at(file: IncomingFile) -> None:
        try:
            with storage.naming_a_full_disk():
                file.vetted = vet(
                    file.path,
                    name=file.name,
                    content_type=file.content_type,
                    staging=staging,
                    limits=get_config().uploads,
                    thumbnail_size=default_size(),
                )
        except PictureRefused as refusal:
            file.refusal = refusal

    _side_by_side(look_at, [file for file in files if not file.refusal])


def store_pictures(
    files: Sequence[IncomingFile], *, new_image: Callable[[IncomingFile], Image]
) -> list[Image]:
    """Take the files that were found good into the store; return their images, which are not saved yet.

    Raises:
        StorageFull: the disk is full.
    """
    accepted = [file for file in files if file.vetted]
    for file in accepted:
        file.image = new_image(file)
        file.image.original_name = file.name
        file.image.name = file.image.name or title_of(file.name)
    return _side_by_side(_store, accepted)


def store_vetted(image: Image, vetted: VettedPicture) -> None:
    """Take a vetted picture into the store with the thumbnail that lists show, and note it on its unsaved image.

    Raises:
        StorageFull: the disk is full.
    """
    stored = storage.adopt_file(vetted.path, suffix=SUFFIXES[vetted.format])
    image.storage_name, image.sha256, image.size_bytes = stored.name, stored.sha256, stored.size_bytes
    image.width, image.height, image.format = vetted.width, vetted.height, vetted.format
    if vetted.thumbnail:
        storage.write_file(thumbnail_name(stored.sha256, default_size()), vetted.thumbnail.read_bytes())


def _store(file: IncomingFile) -> Image:
    if file.image is None or file.vetted is None:
        raise ValueError("The file has not been vetted.")
    store_vetted(file.image, file.vetted)
    return file.image


def _side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Do the same to each item, as many at once as there are decoders; return the results in order."""
    if len(items) < 2:
        return [work(item) for item in items]
    threads = min(get_config().uploads.decoders, len(items))
    with ThreadPoolExecutor(threads, thread_name_prefix="uploads") as pool:
        futures = [pool.submit(copy_context().run, work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
