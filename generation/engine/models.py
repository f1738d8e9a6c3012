"""Pipelines kept in memory between requests, a few of them, the least recently used going first."""

import gc
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation.engine import loading
from generation.engine.hardware import Hardware, free_cached_memory
from generation.engine.request import ModelKind, ModelReference

ModelKey = tuple[ModelKind, str, int, int]


@dataclass
class LoadedModel:
    """A pipeline, and its own scheduler as it was loaded: the original that requests copy."""

    pipeline: Any  # the pipelines of diffusers share no base that names their parts
    scheduler: Any


class ModelCache:
    """The models in memory. ``loads`` counts how often one was read from disk."""

    def __init__(self, hardware: Hardware, capacity: int | None = None) -> None:
        self.hardware = hardware
        self.capacity = capacity or hardware.default_capacity
        self.loads = 0
        self._models: OrderedDict[ModelKey, LoadedModel] = OrderedDict()

    def find(self, reference: ModelReference) -> LoadedModel | None:
        """Return a model that is in memory, unless its files have changed since."""
        key = _key(reference)
        if key not in self._models:
            return None
        self._models.move_to_end(key)
        return self._models[key]

    def load(self, reference: ModelReference) -> LoadedModel:
        """Read a model from disk, letting go of others to make room first.

        Raises:
            RequestFailed: the model is missing, broken or too large.
        """
        loading.check_presence(reference)
        while len(self._models) >= self.capacity:
            self._models.popitem(last=False)
        self.release_memory()
        pipeline = loading.load_pipeline(reference, self.hardware)
        model = LoadedModel(pipeline, pipeline.scheduler)
        self._models[_key(reference)] = model
        self.loads += 1
        return model

    def release_memory(self) -> None:
        """Free what nothing refers to any more."""
        gc.collect()
        free_cached_memory(self.hardware)


def _key(reference: ModelReference) -> ModelKey:
    """Return what tells one state of a model from another: a model trained again is another one."""
    path = Path(reference.source)
    try:
        status = (path / loading.INDEX if reference.kind == ModelKind.FOLDER else path).stat()
    except OSError:  # a hub id, or a model that is no longer there
        return reference.kind, reference.source, 0, 0
    return reference.kind, reference.source, status.st_mtime_ns, status.st_size
