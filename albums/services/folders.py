"""Importing a folder of pictures into an album: what an upload does, without the web, and as often as one likes."""

import errno
import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from django.contrib.auth.models import User
from django.db import transaction

from albums.batches import in_batches
from albums.decoding import PictureRefused, PictureTooLarge
from albums.models import Album, Image, LabelKind, LabelOrigin
from albums.services.albums import lock_album
from albums.services.derivatives import request_derivatives
from albums.services.file_names import safe_file_name
from albums.services.images import save_images
from albums.services.labels import NewLabel, put_labels
from albums.services.sidecars import BadSidecar, Sidecar, read_sidecars
from albums.services.uploads import IncomingFile, quarantine, store_pictures, vet_pictures
from imagehub import storage
from imagehub.config import get_config
from imagehub.errors import Invalid

BATCH = 32
"""How many pictures are written down at once: few enough to lie in quarantine together, and to be lost by a Ctrl-C."""

CHUNK_BYTES = 1024 * 1024

PICTURES = frozenset({
    ".png", ".jpg", ".jpeg", ".webp",
    # Not taken, but meant to be seen: their refusal is told.
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jxl", ".psd", ".svg", ".tif", ".tiff",
})  # fmt: skip
"""Endings of what somebody may have meant to import. Everything else in a folder is left alone."""

ORIGINAL = uuid.UUID("5b0c5d5e-3b2f-4f0a-9a53-8c4d3c8a4b67")
"""The namespace of the ids that say: these bytes, imported into this album."""


class NotFollowed(PictureRefused):
    code = "link"


class NotRead(PictureRefused):
    code = "unreadable_file"


@dataclass(frozen=True)
class RefusedFile:
    """A file that was not imported, and why."""

    path: str
    """Relative to the folder."""
    code: str
    detail: str


@dataclass
class ImportReport:
    """What became of the files of a folder."""

    found: int = 0
    imported: int = 0
    already_there: int = 0
    labels: int = 0
    refused: list[RefusedFile] = field(default_factory=list)


@dataclass
class FolderFile(IncomingFile):
    """A picture of a folder, on its way into quarantine."""

    source: Path = Path()
    relative: str = ""
    key: uuid.UUID | None = None
    said: Sidecar = field(default_factory=Sidecar)


def find_pictures(folder: Path, *, recursive: bool = True) -> Iterator[Path]:
    """Yield the files of a folder that may be pictures, as people would count them: ``card 2`` before ``card 10``.

    Links are yielded and not followed.
    """
    for here, folders, files in os.walk(folder):
        links = [name for name in folders if Path(here, name).is_symlink()]
        folders[:] = sorted(folders, key=_as_people_count) if recursive else []
        names = [name for name in files if Path(name).suffix.lower() in PICTURES]
        for name in sorted([*names, *(links if recursive else [])], key=_as_people_count):
            yield Path(here, name)


def import_pictures(
    folder: Path,
    paths: Iterable[Path],
    *,
    album: Album | None,
    visibility: str,
    owner: User | None = None,
    dry_run: bool = False,
    report: ImportReport,
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Import pictures of a folder into an album, batch by batch, and count in ``report``.

    A picture whose bytes were imported into this album before is not imported again, so that an import that was
    interrupted goes on where it was. Each batch is written in one transaction, labels included.

    Args:
        folder: what the names in the report are relative to.
        paths: the pictures. They are only read.
        album: where they go. It may be missing when nothing is to be written.
        visibility: of the new images.
        owner: whose they will be.
        dry_run: whether everything is checked and nothing written.
        report: is true after each batch, however the import ends.
        progress: is told after each batch how many files are done.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        StorageFull: the disk is full.
    """
    for batch in in_batches(paths, BATCH):
        files = [_look_at(path, folder, album) for path in batch]
        fresh = _not_there_yet(files)
        with quarantine() as staging:
            for number, file in enumerate(fresh):
                _copy(file, staging / f"{number:04d}")
            vet_pictures(fresh, staging=staging)
            accepted = [file for file in fresh if file.vetted]
            if album and not dry_run:
                accepted = _write(accepted, album, visibility, owner, report)
        _count(files, accepted, report)
        progress(len(files))


def _count(files: Sequence[FolderFile], accepted: Sequence[FolderFile], report: ImportReport) -> None:
    refused = [
        RefusedFile(file.relative, file.refusal.code, str(file.refusal)) for file in files if file.refusal
    ]
    report.found += len(files)
    report.imported += len(accepted)
    report.already_there += len(files) - len(accepted) - len(refused)
    report.refused += refused


def _look_at(path: Path, folder: Path, album: Album | None) -> FolderFile:
    """Find out what a picture is without writing anything: its bytes, and what is said about it."""
    file = FolderFile(
        path, safe_file_name(path.name), source=path, relative=_readable(path.relative_to(folder))
    )
    try:
        with _open(path) as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        file.key = uuid.uuid5(ORIGINAL, f"{album.pk if album else ''}:{digest}")
        file.said = read_sidecars(path)
        _labels_of(file.said, uuid.uuid4(), None)
    except PictureRefused as refusal:
        file.refusal = refusal
    except Invalid as error:
        file.refusal = BadSidecar(str(error))
    return file


def _copy(file: FolderFile, target: Path) -> None:
    """Copy a picture into quarantine, where nobody changes it while it is looked at.

    Raises:
        StorageFull: the disk is full.
    """
    try:
        with _open(file.source) as source:
            storage.require_space(os.fstat(source.fileno()).st_size)
            with storage.naming_a_full_disk(), target.open("xb") as copy:
                shutil.copyfileobj(source, copy, CHUNK_BYTES)
    except PictureRefused as refusal:
        file.refusal = refusal
    file.path = target


def _write(
    files: Sequence[FolderFile], album: Album, visibility: str, owner: User | None, report: ImportReport
) -> list[FolderFile]:
    """Store pictures and write their rows; return those that nobody else has imported in the meantime."""
    store_pictures(files, new_image=lambda file: _new_image(file, visibility, owner))
    with transaction.atomic():
        # The lock of the album: what others import into it at the same time is there, or comes after us.
        lock_album(album)
        new = _not_there_yet(files)
        images = [file.image for file in new if file.image]
        save_images(images, album=album)
        labels = [
            label for file in new if file.image for label in _labels_of(file.said, file.image.pk, owner)
        ]
        report.labels += len(put_labels(labels))
        request_derivatives(image.pk for image in images)
    return new


def _new_image(file: FolderFile, visibility: str, owner: User | None) -> Image:
    return Image(
        owner=owner,
        visibility=visibility,
        source_kind=Image.SourceKind.IMPORT,
        source_id=file.key,
        **file.said.facts,
    )


def _not_there_yet(files: Sequence[FolderFile]) -> list[FolderFile]:
    """Return the files that nobody has refused or imported, and of equal ones the first."""
    wanted = {file.key: file for file in reversed(files) if not file.refusal}
    there = Image.objects.filter(source_kind=Image.SourceKind.IMPORT, source_id__in=wanted)
    for key in there.values_list("source_id", flat=True):
        del wanted[key]
    return list(reversed(wanted.values()))


def _labels_of(said: Sidecar, image_id: uuid.UUID, user: User | None) -> list[NewLabel]:
    texts = [(LabelKind.CAPTION, said.caption)] if said.caption else []
    texts += [(LabelKind.TAG, tag) for tag in said.tags]
    return [NewLabel(image_id, kind, text, LabelOrigin.IMPORT, user=user) for kind, text in texts]


def _open(path: Path) -> BinaryIO:
    """Open a picture of a folder.

    Raises:
        NotFollowed: it is a link.
        NotRead: it is no file, or cannot be read.
        PictureTooLarge: it has too many bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotFollowed("A link is not followed.") from error
        raise NotRead(f"It cannot be read: {error.strerror}.") from error
    file = os.fdopen(descriptor, "rb")
    status, longest = os.fstat(descriptor), get_config().uploads.max_file_bytes
    try:
        if not stat.S_ISREG(status.st_mode):
            raise NotRead("It is no regular file.")
        if status.st_size > longest:
            raise PictureTooLarge(f"A file may have {longest:,} bytes at most.")
    except PictureRefused:
        file.close()
        raise
    return file


def _readable(path: Path) -> str:
    """Return a path as text that can be printed, whatever bytes are in it."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(path)
    )


def _as_people_count(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
