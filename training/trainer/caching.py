"""What encoders made of pictures and captions, kept on disk under names that tell what went in.

Equal names mean equal content, so a second training on the same pictures encodes nothing, and whatever changes the
result (another crop, another autoencoder, another format) asks for another name. A file is whole or not there.
"""

import hashlib
import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from training.pipelines.failures import FailureCode, RequestFailed, is_disk_full

SUFFIX = ".safetensors"
PARTIAL = ".part"

STALE_SECONDS = 3600.0
"""A file that was not finished for so long never will be."""


def key_of(**facts: Any) -> str:
    """Return the name of what is made of some facts, which JSON can say."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Cache:
    """A folder of named tensors that several trainings share. Safe for any number of processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """Return what is kept under a name, in main memory, or None. What cannot be read is as good as not there."""
        path = self._path(key)
        try:
            # Read and not mapped: a training keeps all it needs, and a process may have no more than 65,530 mappings.
            tensors = load(path.read_bytes())
        except (SafetensorError, OSError):
            return None
        with suppress(OSError):
            os.utime(path)  # used just now: see clean()
        return tensors

    def put(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        """Keep tensors under a name.

        Raises:
            RequestFailed: they cannot be written (``disk_full``, ``storage_error``).
        """
        path = self._path(key)
        partial = path.with_name(f".{key}.{os.getpid()}{PARTIAL}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
            partial.replace(path)
        except Exception as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            if is_disk_full(error):
                raise RequestFailed(
                    FailureCode.DISK_FULL, "The disk is full; nothing more can be encoded."
                ) from error
            if isinstance(error, OSError | SafetensorError):
                raise RequestFailed(
                    FailureCode.STORAGE_ERROR, "What was encoded cannot be written into the cache."
                ) from error
            raise

    def clean(self, limit_bytes: int, *, keep: Collection[str] = ()) -> int:
        """Delete what was used least recently until the cache is no larger, and what was never finished; count it.

        Trainings read all they need before the first step, so none misses what is deleted later.

        Args:
            limit_bytes: how large the cache may be.
            keep: names that stay in any case.
        """
        removed = 0
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.glob("*/*"):
            with suppress(OSError):  # another process deletes, too
                status = path.stat()
                if path.suffix == SUFFIX:
                    found.append((status.st_mtime, status.st_size, path))
                elif path.suffix == PARTIAL and time.time() - status.st_mtime > STALE_SECONDS:
                    path.unlink()
        excess = sum(size for _, size, _ in found) - limit_bytes
        for _, size, path in sorted(found):
            if excess <= 0:
                break
            if path.stem not in keep:
                with suppress(OSError):
                    path.unlink()
                    excess -= size
                    removed += 1
        return removed

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}{SUFFIX}"
