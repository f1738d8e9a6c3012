"""Pipelines kept in memory between requests, a few of them, the least recently used going first."""

import gc
import threading
from collections import Counter, OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoPipelineForImage2Image

from generation.engine.previews import Previewer
from generation.engine.prompts import PromptReader
from generation.engine.stacks import AdapterShelf, Limits
from training.pipelines import loading
from training.pipelines.failures import FailureCode, RequestFailed
from training.pipelines.hardware import Hardware, free_cached_memory, memory_bytes
from training.pipelines.references import ModelKind, ModelReference

ModelKey = tuple[ModelKind, str, int, int]


class LoadedModel:
    """A pipeline, its own scheduler as it was loaded (the original that requests copy), and what is kept beside it."""

    def __init__(self, reference: ModelReference, pipeline: Any, limits: Limits) -> None:
        self.reference = reference
        self.pipeline = pipeline
        self.scheduler = pipeline.scheduler
        self.adapters = AdapterShelf(pipeline, limits)
        self.prompts = PromptReader(pipeline)
        self.previewer = Previewer(pipeline)
        self.uses = 1
        self.size_bytes = sum(
            tensor.nbytes
            for part in pipeline.components.values()
            if isinstance(part, torch.nn.Module)
            for tensor in (*part.parameters(), *part.buffers())
        )

    @property
    def served(self) -> dict[str, int]:
        """How often what is kept beside it was there already, or had to be read."""
        return {
            "prompt_hits": self.prompts.hits,
            "adapter_loads": self.adapters.loads,
            "adapter_hits": self.adapters.hits,
            "adapter_evictions": self.adapters.evictions,
        }

    @cached_property
    def image_to_image(self) -> Any:
        """The pipeline that starts from a picture: of the same parts, so nothing is loaded again.

        Raises:
            RequestFailed: there is none for this kind of model (``bad_request``).
        """
        try:
            pipeline = AutoPipelineForImage2Image.from_pipe(self.pipeline)
        except ValueError as error:
            raise RequestFailed(FailureCode.BAD_REQUEST, "This model cannot start from a picture.") from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


class ModelCache:
    """The models in memory: at most ``capacity``, and at most ``budget_bytes`` unless one alone takes more.

    ``loads`` counts how often one was read from disk, ``hits`` how often one was there already. Belongs to one thread, but
    for its statistics: whatever they read is changed under a lock.
    """

    def __init__(
        self,
        hardware: Hardware,
        capacity: int | None = None,
        *,
        budget_bytes: int | None = None,
        adapters: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self.hardware = hardware
        self.capacity = capacity or hardware.default_capacity
        self.budget_bytes = budget_bytes or memory_bytes(hardware) // 2
        self.loads = self.hits = 0
        self._served: Counter[str] = Counter()
        self._limits = adapters
        self._models: OrderedDict[ModelKey, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, reference: ModelReference) -> LoadedModel | None:
        """Return a model that is in memory, unless its files have changed since."""
        key = _key(reference)
        if key not in self._models:
            return None
        with self._lock:
            self.hits += 1
            self._models.move_to_end(key)
            self._models[key].uses += 1
            return self._models[key]

    def load(self, reference: ModelReference) -> LoadedModel:
        """Read a model from disk, letting go of others to make room first.

        Raises:
            RequestFailed: the model is missing, broken or too large.
        """
        loading.check_presence(reference)
        self._make_room(self.capacity - 1, self.budget_bytes - loading.size_on_disk(reference))
        try:
            pipeline = loading.load_pipeline(reference, self.hardware)
        except RequestFailed as failure:
            if failure.code != FailureCode.OUT_OF_MEMORY or not self._models:
                raise
            pipeline = None
        if pipeline is None:  # outside the except block, whose traceback kept alive what did not fit
            self._make_room(0, 0)
            pipeline = loading.load_pipeline(reference, self.hardware)
        model = LoadedModel(reference, pipeline, self._limits)
        self._make_room(self.capacity - 1, self.budget_bytes - model.size_bytes)
        with self._lock:
            self._models[_key(reference)] = model
            self.loads += 1
        return model

    def release_memory(self) -> None:
        """Free what nothing refers to any more."""
        gc.collect()
        free_cached_memory(self.hardware)

    def spare_memory(self, model: LoadedModel) -> None:
        """Let go of everything but what one model needs for the request at hand."""
        with self._lock:
            for key in [key for key, other in self._models.items() if other is not model]:
                self._served.update(self._models.pop(key).served)
        model.prompts.forget()
        model.adapters.clear(keep_active=True)
        self.release_memory()

    def statistics(self) -> dict[str, Any]:
        """Return what is in memory, the least recently used first, and how well it served; `served` counts models that were let go too.

        Safe from any thread.
        """
        with self._lock:
            models = list(self._models.values())
            loads, hits = self.loads, self.hits
            served = self._served.copy()
        for model in models:
            served.update(model.served)
        return {
            "capacity": self.capacity,
            "budget_bytes": self.budget_bytes,
            "loads": loads,
            "hits": hits,
            "served": dict(served),
            "models": [
                {
                    "name": model.reference.name,
                    "source": model.reference.source,
                    "size_bytes": model.size_bytes,
                    "uses": model.uses,
                    **model.served,
                }
                for model in models
            ],
            "adapters": [
                {"id": resident.id, "model": model.reference.name, "size_bytes": resident.size_bytes}
                for model in models
                for resident in model.adapters.residents
            ],
        }

    def _make_room(self, count: int, size_bytes: int) -> None:
        """Let go of models until at most so many, of at most so many bytes, are left."""
        while self._models and (
            len(self._models) > count or sum(model.size_bytes for model in self._models.values()) > size_bytes
        ):
            with self._lock:
                self._served.update(self._models.popitem(last=False)[1].served)
        self.release_memory()


def _key(reference: ModelReference) -> ModelKey:
    """Return what tells one state of a model from another: a model trained again is another one."""
    path = Path(reference.source)
    try:
        status = (path / loading.INDEX if reference.kind == ModelKind.FOLDER else path).stat()
    except OSError:  # a hub id, or a model that is no longer there
        return reference.kind, reference.source, 0, 0
    return reference.kind, reference.source, status.st_mtime_ns, status.st_size
