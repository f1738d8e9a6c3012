"""What a job names must be there and enabled: asked when it is looked at, and again when its turn has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from generation.models import GenerationJob
from generation.services.stacks import as_id
from imagehub.jobs.lease import JobFailed
from training.models import Adapter, BaseModel


@dataclass(frozen=True)
class Hindrance:
    """Why a job would fail as things are: the code of its error, and the sentence."""

    code: str
    detail: str


def find_hindrances(jobs: Sequence[GenerationJob]) -> dict[UUID, Hindrance]:
    """Say of each job that names a model or an adapter which is disabled or gone, which; by two queries for all of them.

    Disabling stops what waits, and not only new requests: so a takedown, or who finds a file wanting, need not look for jobs.
    """
    models = BaseModel.objects.in_bulk({job.base_model_id for job in jobs})
    adapters = _adapters_of(jobs)
    found = {job.pk: _hindrance(job, models[job.base_model_id], adapters) for job in jobs}
    return {pk: hindrance for pk, hindrance in found.items() if hindrance}


def refuse_hindered(job: GenerationJob) -> None:
    """See that what a claimed job names may be used.

    Raises:
        JobFailed: it is disabled or gone.
    """
    if hindrance := _hindrance(job, job.base_model, _adapters_of([job])):
        raise JobFailed(hindrance.code, hindrance.detail)


def _adapters_of(jobs: Sequence[GenerationJob]) -> dict[UUID, Adapter]:
    named = {pk for job in jobs for lora in job.loras if (pk := as_id(lora.get("id")))}
    return Adapter.objects.only("is_enabled").in_bulk(named) if named else {}


def _hindrance(job: GenerationJob, model: BaseModel, adapters: dict[UUID, Adapter]) -> Hindrance | None:
    if not model.is_enabled:
        return Hindrance("model_disabled", f"The base model “{model}” is disabled.")
    for lora in job.loras:
        pk = as_id(lora.get("id"))
        adapter = adapters.get(pk) if pk else None
        if adapter is None:
            return Hindrance("adapter_missing", f"The adapter “{lora.get('name', '')}” has been deleted.")
        if not adapter.is_enabled:
            return Hindrance("adapter_disabled", f"The adapter “{lora.get('name', '')}” is disabled.")
    return None
