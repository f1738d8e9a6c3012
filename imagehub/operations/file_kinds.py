"""Kinds of files: what lies in the managed roots, told apart by where it lies.

The app that owns a folder registers what is in it, in ``AppConfig.ready``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

OTHER = "other"
"""What no app has registered."""


@dataclass
class Usage:
    """How much there is of one kind of files."""

    bytes: int = 0
    files: int = 0


@dataclass(frozen=True)
class FileKind:
    """Files that belong together."""

    root: str
    """One of ``imagehub.roots.every_root``."""
    name: str
    places: tuple[str, ...]
    """Patterns of folders and files below the root, such as ``runs/*/checkpoints``. What lies deeper goes before what it lies in;
    of patterns that are as deep the one that was registered first."""
    in_bucket: Callable[[], Usage] | None = None
    """Tells how much there is where files are stored in a bucket, as far as rows know."""


_kinds: dict[tuple[str, str], FileKind] = {}


def register(root: str, name: str, *places: str, in_bucket: Callable[[], Usage] | None = None) -> None:
    """Add a kind. Registering a name again replaces it, so that autoreload is harmless."""
    _kinds[root, name] = FileKind(root, name, places, in_bucket)


def kinds(root: str | None = None) -> Iterator[FileKind]:
    """Yield the registered kinds, of one root or of all."""
    for kind in list(_kinds.values()):
        if root is None or kind.root == root:
            yield kind
