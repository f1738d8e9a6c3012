"""The files of a checkpoint, told by those who only read them: the services too, for which nothing here needs torch."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

VERSION = 1
MANIFEST = "manifest.json"
ADAPTER = "adapter.safetensors"
STATE = "state.pt"

_FOLDER = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest was read."""

    folder: Path
    step: int
    sha256: str
    """Of its manifest, and so of all of it."""
    size_bytes: int
    validation_loss: float | None
    progress: Mapping[str, Any]
    """What the training noted of itself, as JSON: averages, the best so far, counters."""

    @property
    def adapter(self) -> Path:
        return self.folder / ADAPTER


class CheckpointDamaged(Exception):
    """A checkpoint is not what its manifest says. The text names no path."""


def verify(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder, all of whose bytes are those that were written.

    Raises:
        CheckpointDamaged: they are not, or are not all there.
    """
    content = read_manifest(folder)
    for name, said in content["files"].items():
        try:
            found = describe(folder / name)
        except OSError as error:
            raise CheckpointDamaged(f"{name} cannot be read.") from error
        if found != said:
            raise CheckpointDamaged(f"{name} has other content than was written.")
    return Checkpoint(
        folder=folder,
        step=content["step"],
        sha256=hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest(),
        size_bytes=size_on_disk(folder),
        validation_loss=content["validation_loss"],
        progress=content["progress"],
    )


def best_of(checkpoints: Collection[Checkpoint]) -> Checkpoint | None:
    """Return the checkpoint with the lowest validation loss, the earliest of equals; None where none was measured."""
    measured = [checkpoint for checkpoint in checkpoints if checkpoint.validation_loss is not None]
    return min(measured, key=lambda one: (one.validation_loss, one.step), default=None)


def steps_in(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, damaged or not, from the first."""
    if not folder.is_dir():
        return []
    matches = (_FOLDER.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())
    return sorted(int(match[1]) for match in matches if match)


def folder_name(step: int) -> str:
    """Return how the folder of a checkpoint is called."""
    return f"step-{step:06d}"


def manifest_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a manifest as bytes. It tells its own digest, too, or a wrong digit in it would go unseen."""
    return _canonical({"content": content, "sha256": hashlib.sha256(_canonical(content)).hexdigest()})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest of a checkpoint says.

    Raises:
        CheckpointDamaged: it is not there, or not as it was written.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
        content = json.loads(raw)["content"]
        if raw != manifest_bytes(content) or content["version"] != VERSION:
            raise CheckpointDamaged("Its manifest has other content than was written.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointDamaged("Its manifest cannot be read.") from error
    return content


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def describe(path: Path) -> dict[str, Any]:
    """Return what a manifest tells of a file."""
    with path.open("rb") as file:
        return {"size": os.fstat(file.fileno()).st_size, "sha256": _sha256(file)}


def _sha256(file: BinaryIO) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def size_on_disk(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())
