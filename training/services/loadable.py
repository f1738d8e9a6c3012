"""Which base models can be loaded, and where: what workers tell of their machines, and what follows for jobs."""

import time
from collections.abc import Iterable
from functools import lru_cache
from uuid import UUID

from imagehub.errors import NotReady
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from training.models import BaseModel
from training.services.base_models import locate_base_model, problem_on_this_machine

LOOK_SECONDS = 60
"""So long a look at the files of a base model is good. That they are there at all is looked up each time."""


def loadable_here() -> list[str]:
    """Return the names of the base models that this machine can load, for the facts of a worker.

    Also of those that are disabled: whoever enables one need not wait until the workers have said so.
    """
    return sorted(model.name for model in BaseModel.objects.all() if _is_usable_here(model))


def reasons_against(models: Iterable[BaseModel], cluster: Cluster) -> dict[UUID, str]:
    """Say of each base model that no worker of a cluster can load, why not.

    The workers know: their machines may have other files than this one. What this one has seen counts only where a worker
    that lives has not said anything yet.
    """
    told = [facts.get("models") for facts in presence.live(cluster).values_list("facts", flat=True)]
    usable = {name for names in told if isinstance(names, list) for name in names}
    all_have_said = bool(told) and all(isinstance(names, list) for names in told)
    reasons = {}
    for model in models:
        if model.name in usable:
            continue
        if all_have_said:
            reasons[model.pk] = f"No live worker has the base model “{model}”."
        elif model.problem:
            reasons[model.pk] = f"The base model “{model}” cannot be used: {model.problem}"
    return reasons


def _is_usable_here(model: BaseModel) -> bool:
    try:
        locate_base_model(model)  # one of the hub counts as here: only loading it would tell
    except NotReady:
        return False
    return not _problem_of(model, model.kind, model.source, int(time.monotonic() // LOOK_SECONDS))


@lru_cache(maxsize=256)
def _problem_of(model: BaseModel, kind: str, source: str, period: int) -> str:
    return problem_on_this_machine(model)
