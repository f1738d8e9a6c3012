"""The manifest of a data set: one entry for each picture, in an order that never changes."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

VERSION = 1


class ManifestDamaged(Exception):
    """A manifest cannot be read, or does not say what one says. The text names no path."""


@dataclass(frozen=True)
class Entry:
    """One picture. Sizes are width and height in pixels."""

    sha256: str
    """Of the bytes of the file, which is called so, in the folder of pictures."""
    caption: str
    role: Literal["train", "validation"]
    repeats: int
    size: tuple[int, int]
    bucket: tuple[int, int]
    """The size it is trained in: scaled to cover it, then cropped."""


@dataclass(frozen=True)
class Manifest:
    """All pictures of a data set."""

    entries: tuple[Entry, ...]

    def to_json(self) -> str:
        """Return it in canonical form: the same entries give the same text."""
        content = {"version": VERSION, "entries": [asdict(entry) for entry in self.entries]}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    def digest(self) -> str:
        """Return the SHA-256 of the canonical form."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def of_role(self, role: str) -> tuple[Entry, ...]:
        """Return the entries with a role, in their order."""
        return tuple(entry for entry in self.entries if entry.role == role)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            ManifestDamaged: it is not there, or no manifest of this version.
        """
        try:
            content = json.loads(path.read_text())
            if content["version"] != VERSION:
                raise ManifestDamaged(
                    "The manifest of the data set has a version that this trainer does not know."
                )
            return cls(tuple(map(_entry, content["entries"])))
        except OSError as error:
            raise ManifestDamaged("The manifest of the data set cannot be read.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestDamaged("The manifest of the data set is damaged.") from error


def manifest(entries: Iterable[Entry]) -> Manifest:
    """Return a manifest of entries, in the order of their content: whatever order they came in, it is the same."""
    return Manifest(tuple(sorted(entries, key=lambda entry: (entry.sha256, entry.caption, entry.role))))


def _entry(value: Mapping[str, Any]) -> Entry:
    width, height = value["size"]
    bucket_width, bucket_height = value["bucket"]
    if value["role"] not in ("train", "validation"):
        raise ValueError
    return Entry(
        sha256=str(value["sha256"]),
        caption=str(value["caption"]),
        role=value["role"],
        repeats=int(value["repeats"]),
        size=(int(width), int(height)),
        bucket=(int(bucket_width), int(bucket_height)),
    )
