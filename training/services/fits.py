"""Which adapters fit which base models: told before there is a job, and not by the engine."""

import uuid
from functools import lru_cache
from pathlib import Path

from imagehub.errors import NotReady
from training.models import Adapter, AdapterQuerySet, Architecture, BaseModel
from training.services.adapters import AdapterMissing, AdapterRefused, facts_of_file, locate_adapter
from training.services.base_models import path_of_base_model
from training.weights import AdapterFacts, Layers, WeightsRefused, layers_of_model, misfit

MOST_LOOKED_AT = 200
"""Adapters that are looked at one by one for a list. The first look at a large one takes 50 ms."""


class AdapterIncompatible(NotReady):
    code = "adapter_incompatible"
    title = "The adapter does not fit the base model"


def check_fits(adapter: Adapter, base_model: BaseModel) -> None:
    """Check that an adapter changes only layers that a base model has.

    That is told by their families, and layer by layer where the weights of the model are on this machine. Reads headers
    only, and each of them once.

    Raises:
        AdapterIncompatible: it does not fit; the text says why.
        AdapterMissing: its file is not on this machine.
    """
    if base_model.architecture and base_model.architecture != adapter.architecture:
        raise AdapterIncompatible(
            f"The adapter “{adapter}” is for {adapter.get_architecture_display()}, the base model “{base_model}” is "
            f"{base_model.get_architecture_display()}."
        )
    if reason := _misfit(locate_adapter(adapter), base_model):
        raise AdapterIncompatible(
            f"The adapter “{adapter}” does not fit the base model “{base_model}”. {reason}"
        )


def adapters_that_fit(adapters: AdapterQuerySet, base_model: BaseModel) -> AdapterQuerySet:
    """Return which of these adapters fit a base model.

    In a known family all do. Of a model of no known family, the newest adapters are looked at one by one.
    """
    if base_model.architecture:
        adapters = adapters.filter(architecture=base_model.architecture)
    if base_model.architecture not in {"", Architecture.OTHER}:
        return adapters
    fitting: list[uuid.UUID] = []
    for adapter in adapters.order_by("-created_at", "-pk")[:MOST_LOOKED_AT]:
        try:
            check_fits(adapter, base_model)
        except (AdapterIncompatible, AdapterMissing):
            continue
        fitting.append(adapter.pk)
    return adapters.filter(pk__in=fitting)


def _misfit(adapter: Path, base_model: BaseModel) -> str:
    """Return why the layers of an adapter do not fit; nothing where a file cannot be looked at."""
    path = path_of_base_model(base_model)
    if path is None:
        return ""
    try:
        return misfit(_facts_of(adapter, *_state_of(adapter)), _layers_of(path, *_state_of(path)))
    except (AdapterRefused, WeightsRefused, OSError):  # the engine will say what is wrong with it
        return ""


def _state_of(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written again, or a folder gets another model."""
    status = (path / "model_index.json" if path.is_dir() else path).stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=256)
def _facts_of(path: Path, modified_ns: int, size_bytes: int) -> AdapterFacts:
    return facts_of_file(path)


@lru_cache(maxsize=16)
def _layers_of(path: Path, modified_ns: int, size_bytes: int) -> Layers:
    return layers_of_model(path)
