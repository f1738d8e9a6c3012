"""Adapters that stay with a loaded model between requests, a few of them, the least recently used going first."""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.pipelines import adapters
from training.pipelines.references import LARGEST_STACK, AdapterReference

AdapterKey = tuple[Path, int, int]

TextState = tuple[tuple[AdapterKey, float], ...]

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Limits:
    """How many adapters stay with one model, and how many bytes their weights may take. One stack always fits."""

    count: int = LARGEST_STACK
    size_bytes: int = 1 << 30


@dataclass(frozen=True)
class Resident:
    """An adapter that is loaded, under the name that the pipeline knows it by."""

    id: str
    name: str
    size_bytes: int
    touches_text: bool


class AdapterShelf:
    """The adapters of one pipeline. The base is never loaded again for them, nor changed by them.

    Belongs to one thread, but for ``residents``: the row of them is changed under a lock.
    """

    def __init__(self, pipeline: Any, limits: Limits) -> None:
        self.loads = self.hits = self.evictions = 0
        self._pipeline = pipeline
        self._limits = limits
        self._residents: OrderedDict[AdapterKey, Resident] = OrderedDict()
        self._active: tuple[tuple[AdapterKey, float], ...] = ()
        self._lock = threading.Lock()

    @property
    def residents(self) -> list[Resident]:
        """What is loaded now, the least recently used first. Safe from any thread."""
        with self._lock:
            return list(self._residents.values())

    @property
    def text_state(self) -> TextState:
        """What acts on the text encoders now: prompts encoded under another state mean something else."""
        return tuple(pair for pair in self._active if self._residents[pair[0]].touches_text)

    def use(self, stack: Sequence[AdapterReference]) -> None:
        """Let these adapters act, and no others.

        Raises:
            RequestFailed: one of them is missing or does not fit the model. None acts then.
        """
        wanted = tuple((_key(adapter), adapter.weight) for adapter in stack)
        if wanted == self._active and all(key in self._residents for key, _ in wanted):
            self.hits += len(wanted)
            for key, _ in wanted:
                self._touch(key)
            return
        self._activate(())
        for adapter, (key, _) in zip(stack, wanted, strict=True):
            if key in self._residents:
                self.hits += 1
                self._touch(key)
            else:
                self._make_room({key for key, _ in wanted})
                self._load(adapter, key)
        self._make_room({key for key, _ in wanted}, is_full=False)
        self._activate(wanted)

    def clear(self, *, keep_active: bool = False) -> None:
        """Let go of all adapters, or of those that do not act now."""
        keep = {key for key, _ in self._active} if keep_active else set()
        if not keep:
            self._activate(())
        for key in [key for key in self._residents if key not in keep]:
            self._evict(key)

    def _activate(self, wanted: tuple[tuple[AdapterKey, float], ...]) -> None:
        adapters.activate(self._pipeline, {self._residents[key].name: weight for key, weight in wanted})
        self._active = wanted

    def _load(self, adapter: AdapterReference, key: AdapterKey) -> None:
        # Of the same length all of them, so that none is part of another: the libraries look for parts of names.
        name = f"adapter-{next(_numbers):09}"
        size = adapters.load_adapter(self._pipeline, adapter.source, name=name, label=adapter.name)
        self.loads += 1
        resident = Resident(adapter.id, name, size, adapters.touches_text(self._pipeline, name))
        with self._lock:
            self._residents[key] = resident

    def _touch(self, key: AdapterKey) -> None:
        with self._lock:
            self._residents.move_to_end(key)

    def _make_room(self, keep: set[AdapterKey], *, is_full: bool = True) -> None:
        """Let go of what is used least recently, but for what the stack at hand needs."""
        for key in [key for key in self._residents if key not in keep]:
            is_crowded = len(self._residents) + is_full > self._limits.count
            size = sum(resident.size_bytes for resident in self._residents.values())
            if not is_crowded and size <= self._limits.size_bytes:
                return
            self._evict(key)

    def _evict(self, key: AdapterKey) -> None:
        with self._lock:
            resident = self._residents.pop(key)
        adapters.remove_adapter(self._pipeline, resident.name)
        self.evictions += 1


def _key(adapter: AdapterReference) -> AdapterKey:
    """Return what tells one state of a file from another: an adapter trained again is another one."""
    try:
        status = adapter.source.stat()
    except OSError:
        return adapter.source, 0, 0
    return adapter.source, status.st_mtime_ns, status.st_size
