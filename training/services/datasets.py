"""Data sets: the captioned pictures of some albums as they are now, and their files where a trainer looks for them."""

import hashlib
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q

from albums.models import Album, AlbumImage, Image, Label, LabelKind, Visibility, may_see_everything
from albums.services import captions_of
from albums.services.bulk import lock_images
from imagehub import storage
from imagehub.config import get_config
from imagehub.errors import Fault, InvalidFields, NotReady
from training.datasets.buckets import Size, bucket_of
from training.datasets.manifest import Entry, Manifest, manifest
from training.datasets.splits import split
from training.models import Dataset, DatasetImage
from training.recipe import Recipe
from training.trainer.assignment import RunFolder

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

BATCH = 500
PIECE_BYTES = 1 << 20


class NotEnoughImages(NotReady):
    code = "not_enough_images"
    title = "Too few captioned images"


class TooManyImages(NotReady):
    code = "too_many_images"
    title = "Too many images for one data set"


class DatasetIncomplete(NotReady):
    code = "dataset_incomplete"
    title = "Pictures of the data set are missing"


class PicturesGone(NotReady):
    code = "missing_files"
    title = "Pictures of the data set are not to be learned from any more"


@dataclass(frozen=True)
class Candidate:
    """A picture of some albums, and whether and how it would be trained."""

    image: Image
    caption: str | None
    repeats: int
    bucket: Size | None
    """None where it is too small for any."""

    @property
    def is_usable(self) -> bool:
        return bool(self.caption) and self.bucket is not None

    @property
    def size(self) -> Size:
        return self.image.width, self.image.height


@dataclass(frozen=True)
class Readiness:
    """How far an album is from being trained on, as somebody may see it."""

    total_images: int
    captioned_images: int
    minimum_images: int

    @property
    def is_ready(self) -> bool:
        return self.captioned_images >= self.minimum_images


def albums_named(ids: Sequence[uuid.UUID]) -> list[Album]:
    """Return albums by their ids, in their order.

    Raises:
        InvalidFields: one is not there, or named twice; the pointers name all of these.
    """
    there = Album.objects.in_bulk(ids)
    faults = [
        Fault(f"/album_ids/{place}", "This album is named twice.", "duplicate")
        if pk in ids[:place]
        else Fault(f"/album_ids/{place}", "There is no such object.", "does_not_exist")
        for place, pk in enumerate(ids)
        if pk not in there or pk in ids[:place]
    ]
    if not ids:
        faults = [Fault("/album_ids", "At least one album is needed.", "empty")]
    if faults:
        raise InvalidFields(faults)
    return [there[pk] for pk in ids]


def readiness_of(albums: Sequence[Album], user: "AbstractUser | AnonymousUser") -> dict[uuid.UUID, Readiness]:
    """Return for each album how many of its images have a caption: one query, however many albums there are."""
    shown = AlbumImage.objects.filter(album__in=[album.pk for album in albums], image__deleted_at=None)
    if not may_see_everything(user):
        shown = shown.filter(image__visibility=Visibility.PUBLIC)
    captions = Label.objects.filter(image=OuterRef("image"), kind=LabelKind.CAPTION)
    counted = shown.filter(Exists(captions)).values_list("album").annotate(count=Count("image")).order_by()
    captioned = dict(counted)
    least = get_config().training.minimum_images
    return {
        album.pk: Readiness(album.image_count_for(user), captioned.get(album.pk, 0), least)
        for album in albums
    }


def candidates_of(albums: Sequence[Album], recipe: Recipe) -> list[Candidate]:
    """Return the pictures of albums that are not in the trash, each once, by their ids.

    Raises:
        TooManyImages: there are more than a data set may have.
    """
    repeats: dict[uuid.UUID, int] = {}
    places = AlbumImage.objects.filter(album__in=[album.pk for album in albums], image__deleted_at=None)
    for album, image in places.values_list("album_id", "image_id"):
        repeats[image] = max(repeats.get(image, 1), recipe.repeats.get(str(album), 1))
    limits = get_config().training
    if len(repeats) > limits.max_images:
        raise TooManyImages(
            f"The albums hold {len(repeats)} images, and a data set has at most {limits.max_images}."
        )
    captions = captions_of(repeats)
    return [
        Candidate(image, captions.get(image.pk), repeats[image.pk], _bucket(image, recipe))
        for image in _images(sorted(repeats))
    ]


def snapshot(albums: Sequence[Album], recipe: Recipe, owner: User) -> Dataset:
    """Write down which pictures of albums can be trained on, with their captions, as they are now.

    What has no caption or is too small is left out. Of several captions, that of people counts, then that of an import,
    of a model, of the page it was found on. The images cannot be purged before the transaction of the caller ends.

    Raises:
        NotEnoughImages: fewer than the configuration wants are left.
        TooManyImages: there are more than a data set may have.
    """
    with transaction.atomic():
        found = candidates_of(albums, recipe)
        held = set(lock_images(Image.objects.live(), [candidate.image.pk for candidate in found]))
        rows = [
            _row(one.image, one.caption, one.repeats, one.bucket)
            for one in found
            if one.caption and one.bucket and one.image.pk in held
        ]
        require_enough(len(rows))
        names = [{"id": str(album.pk), "name": album.name} for album in albums]
        return _write(owner, names, rows, recipe)


def snapshot_again(dataset: Dataset, recipe: Recipe, owner: User) -> Dataset:
    """Return a data set of the same pictures and captions for another recipe: itself, where nothing is different.

    Raises:
        NotEnoughImages: too few of its pictures are large enough for the recipe.
    """
    anew = [
        _row(row, row.caption, row.repeats, bucket)
        for row in dataset.images.order_by("position")
        if (bucket := _bucket(row, recipe)) is not None
    ]
    require_enough(len(anew))
    _assign_roles(anew, recipe)
    if manifest_of_rows(anew).digest() == dataset.sha256:
        return dataset
    with transaction.atomic():
        return _write(owner, dataset.albums, anew, recipe)


def require_enough(captioned: int) -> None:
    """Refuse a data set that nothing can be learned from.

    Raises:
        NotEnoughImages: so many are too few.
    """
    least = get_config().training.minimum_images
    if captioned < least:
        raise NotEnoughImages(
            f"{captioned} images with a caption are large enough to be trained on; training needs {least}."
        )


def lack_of_pictures(dataset: Dataset) -> str | None:
    """Return why a data set is not to be learned from any more, or None where all its pictures are there.

    Pictures in the trash count as gone: that is where they are put when somebody asks that they be removed. So do those of
    a run that was imported, of which nobody knows any.
    """
    rows = dataset.images
    count = rows.count()
    if not count:
        return "Nobody knows which pictures the data set has."
    gone = rows.filter(Q(image=None) | Q(image__deleted_at__isnull=False)).count()
    return f"{gone} of {count} pictures of the data set are in the trash, or were deleted." if gone else None


def require_pictures(dataset: Dataset) -> None:
    """Refuse to learn, or to make an adapter of what was learned, from a data set that is not whole any more.

    Raises:
        PicturesGone: pictures of it are in the trash, or were deleted.
    """
    if detail := lack_of_pictures(dataset):
        raise PicturesGone(detail)


def manifest_of(dataset: Dataset) -> Manifest:
    """Return the manifest of a data set.

    Raises:
        DatasetIncomplete: its rows are not those that it was made of.
    """
    found = manifest_of_rows(dataset.images.order_by("position"))
    if found.digest() != dataset.sha256:
        raise DatasetIncomplete("The data set is not what it was when it was made.")
    return found


def materialise(
    dataset: Dataset, folder: RunFolder, *, on_progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """Put the manifest and the pictures of a data set where a trainer looks for them. What is there already stays.

    Pictures are linked where that is possible, and otherwise copied, or fetched from the bucket. They are not to be
    changed there. The manifest comes last: where it is, everything is.

    Args:
        dataset: what is wanted.
        folder: of the run.
        on_progress: called after each picture, with how many are there and how many there will be.

    Raises:
        PicturesGone: some are in the trash, or were deleted: what lies in the folder already does not count then.
        DatasetIncomplete: the store does not have one of the pictures, or not as it was.
        StorageFull: the disk is full.
        StorageUnreachable: the bucket does not answer.
    """
    require_pictures(dataset)
    found = manifest_of(dataset)
    names = dict(dataset.images.values_list("sha256", "storage_name"))
    folder.images.mkdir(parents=True, exist_ok=True)
    with storage.naming_a_full_disk():
        missing = 0
        for count, (sha256, name) in enumerate(sorted(names.items()), start=1):
            missing += not _place(name, sha256, folder.images / sha256)
            if on_progress is not None:
                on_progress(count, len(names))
        if missing:
            raise DatasetIncomplete(
                f"{missing} of {len(names)} pictures of the data set are missing from the store, or damaged."
            )
        partial = folder.manifest.with_suffix(".part")
        partial.write_text(found.to_json())
        partial.replace(folder.manifest)
    return found


def manifest_of_rows(rows: Iterable[DatasetImage]) -> Manifest:
    """Return the manifest that rows stand for."""
    return manifest(
        Entry(
            sha256=row.sha256,
            caption=row.caption,
            role=row.role,  # type: ignore[arg-type]
            repeats=row.repeats,
            size=(row.width, row.height),
            bucket=(row.bucket_width, row.bucket_height),
        )
        for row in rows
    )


def _images(ids: Sequence[uuid.UUID]) -> Iterable[Image]:
    wanted = (
        "id",
        "name",
        "sha256",
        "storage_name",
        "size_bytes",
        "width",
        "height",
        "format",
        "placeholder",
    )
    for start in range(0, len(ids), BATCH):
        batch = Image.objects.filter(pk__in=ids[start : start + BATCH]).only(*wanted).order_by("pk")
        yield from batch


def _bucket(picture: Image | DatasetImage, recipe: Recipe) -> Size | None:
    size = picture.width, picture.height
    if min(size) < get_config().training.minimum_side:
        return None
    return bucket_of(
        size,
        resolution=recipe.resolution,
        step=recipe.bucket_step,
        allow_upscaling=recipe.allow_upscaling,
    )


def _row(picture: Image | DatasetImage, caption: str, repeats: int, bucket: Size) -> DatasetImage:
    return DatasetImage(
        image_id=picture.pk if isinstance(picture, Image) else picture.image_id,
        sha256=picture.sha256,
        storage_name=picture.storage_name,
        caption=caption,
        repeats=repeats,
        width=picture.width,
        height=picture.height,
        bucket_width=bucket[0],
        bucket_height=bucket[1],
    )


def _assign_roles(rows: Collection[DatasetImage], recipe: Recipe) -> None:
    roles = split({row.sha256 for row in rows}, share=recipe.validation_share)
    for row in rows:
        row.role = roles[row.sha256]


def _write(
    owner: User, albums: Sequence[Mapping[str, Any]], rows: list[DatasetImage], recipe: Recipe
) -> Dataset:
    _assign_roles(rows, recipe)
    dataset = Dataset.objects.create(owner=owner, albums=albums, sha256=manifest_of_rows(rows).digest())
    for position, row in enumerate(sorted(rows, key=lambda row: (row.sha256, row.caption))):
        row.dataset, row.position = dataset, position
    DatasetImage.objects.bulk_create(rows, batch_size=BATCH)
    return dataset


def _place(name: str, sha256: str, target: Path) -> bool:
    """Put one picture into its place, and tell whether it is there now."""
    if target.exists():
        return True
    partial = target.with_suffix(".part")
    partial.unlink(missing_ok=True)
    try:
        if storage.is_local():
            with suppress(OSError):  # another disk, or a file system without links
                os.link(storage.path_of(name), partial)
        if not partial.exists():
            with storage.open_file(name) as source, partial.open("wb") as copy:
                while piece := source.read(PIECE_BYTES):
                    copy.write(piece)
        with partial.open("rb") as file:
            is_whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except (FileNotFoundError, storage.UnsafePath):
        return False
    if is_whole:
        partial.replace(target)
    else:
        partial.unlink()
    return is_whole
