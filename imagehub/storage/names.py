"""Names of stored files, what is known of a file, and what can be wrong with either."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagehub.errors import ImageHubError, NotNow, NotReady

if TYPE_CHECKING:
    import hashlib

IMAGES = "images"
THUMBNAILS = "thumbnails"

SUFFIX = re.compile(r"[a-z0-9]{1,8}")


class UnsafePath(ImageHubError):
    """A name that leads out of the media root, or might."""

    code = "unsafe_path"
    title = "The name of a stored file is not safe"


class StorageFull(NotReady):
    code = "disk_full"
    title = "The disk is full"


class StorageUnreachable(NotNow):
    code = "storage_unreachable"
    title = "The place where files are stored does not answer"


@dataclass(frozen=True)
class StoredFile:
    """A file in the store: all that a row needs to know of it."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class FoundFile:
    """A file met while walking through the store, and when it was last written or adopted again."""

    name: str
    size_bytes: int
    modified_at: float


def safe_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a stored file's name.

    Raises:
        UnsafePath: the name is absolute, climbs with ``..``, or is none.
    """
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if not parts or "\0" in name or "\\" in name or name.startswith("/") or ".." in parts:
        raise UnsafePath("A stored file is named by a path relative to the media root.")
    return parts


def named_by_content(digest: "hashlib._Hash", size_bytes: int, suffix: str) -> StoredFile:
    """Return how a file with this SHA-256 digest is stored.

    Raises:
        UnsafePath: the suffix is more than the ending of a name.
    """
    if not SUFFIX.fullmatch(suffix):
        raise UnsafePath("The ending of a stored file is a few lower-case letters or digits.")
    sha256 = digest.hexdigest()
    return StoredFile(f"{IMAGES}/{sha256[:2]}/{sha256}.{suffix}", sha256, size_bytes)
