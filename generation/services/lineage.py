"""Jobs, base models and adapters in the graph of where things come from.

    adapter ──────┐
    base model ── job ── image
    image ────────┘      (image-to-image)

Training adds what an adapter came from.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from albums.image_lineage import IMAGE
from albums.lineage import Edge, Key, Kind, Node, register_kind, register_links
from albums.models import Image, ImageLora, may_see_everything
from generation.models import GenerationJob
from imagehub.accounts import audit
from training.models import Adapter, BaseModel

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

JOB, BASE_MODEL, ADAPTER = "generation_job", "base_model", "adapter"

SHOWN_OF_JOBS = (
    "status", "name", "prompt", "negative_prompt", "seed", "seed_mode", "steps", "width", "height", "guidance_scale",
    "strength",
)  # fmt: skip


def register() -> None:
    """Add them to the graph."""
    register_kind(Kind(JOB, _describe_jobs, _cancel_jobs))
    register_kind(Kind(BASE_MODEL, _describe_base_models))
    register_kind(Kind(ADAPTER, _describe_adapters, _disable_adapters))
    register_links(IMAGE, origins=_jobs_that_made, results=_jobs_that_start_from)
    register_links(JOB, origins=_what_jobs_used, results=_what_jobs_made)
    register_links(ADAPTER, results=_made_with)


def _describe_jobs(ids: Sequence[str], user: "AbstractUser | AnonymousUser") -> Iterator[Node]:
    """Yield jobs for staff as they are, and for others that there was one, if they may see a picture of it."""
    if not may_see_everything(user):
        made = Image.objects.shown_to(user).filter(source_kind=Image.SourceKind.GENERATION, source_id__in=ids)
        for pk in set(made.values_list("source_id", flat=True)):
            yield Node(Key(JOB, str(pk)), "generation job")
        return
    for job in GenerationJob.objects.filter(pk__in=ids).select_related("owner"):
        details: dict[str, Any] = {name: getattr(job, name) for name in SHOWN_OF_JOBS}
        details |= {
            "scheduler": job.scheduler or None,
            "owner": job.owner.username,
            "set_run": job.set_run_id and str(job.set_run_id),
        }
        yield Node(Key(JOB, str(job.pk)), job.name or "generation job", f"/api/jobs/{job.pk}", details)


def _describe_base_models(ids: Sequence[str], user: "AbstractUser | AnonymousUser") -> Iterator[Node]:
    models = BaseModel.objects.all() if may_see_everything(user) else BaseModel.objects.enabled()
    for model in models.filter(pk__in=ids):
        details = {"architecture": model.architecture or None}
        yield Node(Key(BASE_MODEL, str(model.pk)), model.name, f"/api/models/{model.pk}", details)


def _describe_adapters(ids: Sequence[str], user: "AbstractUser | AnonymousUser") -> Iterator[Node]:
    adapters = Adapter.objects.all() if may_see_everything(user) else Adapter.objects.enabled()
    known = [pk for pk in map(_as_id, ids) if pk]
    for adapter in adapters.filter(pk__in=known):
        details = {"architecture": adapter.architecture, "is_enabled": adapter.is_enabled}
        yield Node(Key(ADAPTER, str(adapter.pk)), adapter.name, f"/api/loras/{adapter.pk}", details)


def _jobs_that_made(ids: Sequence[str]) -> Iterator[Edge]:
    images = Image.objects.filter(
        pk__in=ids, source_kind=Image.SourceKind.GENERATION, source_id__isnull=False
    )
    for image, job in images.values_list("id", "source_id"):
        yield Edge(Key(JOB, str(job)), Key(IMAGE, str(image)), "made")


def _what_jobs_made(ids: Sequence[str]) -> Iterator[Edge]:
    images = Image.objects.filter(source_kind=Image.SourceKind.GENERATION, source_id__in=ids)
    for image, job in images.values_list("id", "source_id").iterator():
        yield Edge(Key(JOB, str(job)), Key(IMAGE, str(image)), "made")
    retries = GenerationJob.objects.filter(retry_of__in=ids)
    for job, earlier in retries.values_list("id", "retry_of_id").iterator():
        yield Edge(Key(JOB, str(earlier)), Key(JOB, str(job)), "tried_again")


def _jobs_that_start_from(ids: Sequence[str]) -> Iterator[Edge]:
    jobs = GenerationJob.objects.filter(init_image__in=ids)
    for job, image in jobs.values_list("id", "init_image_id").iterator():
        yield Edge(Key(IMAGE, str(image)), Key(JOB, str(job)), "started_from")


def _what_jobs_used(ids: Sequence[str]) -> Iterator[Edge]:
    jobs = GenerationJob.objects.filter(pk__in=ids).values_list(
        "id", "base_model_id", "loras", "init_image_id", "retry_of_id"
    )
    for pk, base_model, loras, init_image, retry_of in jobs:
        job = Key(JOB, str(pk))
        yield Edge(Key(BASE_MODEL, str(base_model)), job, "used")
        for lora in loras:
            yield Edge(
                Key(ADAPTER, str(lora.get("id"))),
                job,
                "used",
                details={"weight": lora.get("weight")},
                label=str(lora.get("name") or ""),
            )
        if init_image:
            yield Edge(Key(IMAGE, str(init_image)), job, "started_from")
        if retry_of:
            yield Edge(Key(JOB, str(retry_of)), job, "tried_again")


def _made_with(ids: Sequence[str]) -> Iterator[Edge]:
    """Yield what was made with adapters, and the jobs that still are to use them."""
    uses = ImageLora.objects.filter(lora_id__in=ids).values_list("lora_id", "image_id")
    for adapter, image in uses.iterator():
        yield Edge(Key(ADAPTER, adapter), Key(IMAGE, str(image)), "used")
    wanted = set(ids)
    for pk, loras in GenerationJob.objects.active().values_list("id", "loras").iterator():
        for adapter in wanted.intersection(str(lora.get("id")) for lora in loras):
            yield Edge(Key(ADAPTER, adapter), Key(JOB, str(pk)), "used")


def _cancel_jobs(ids: Sequence[str], reason: str) -> int:
    jobs = GenerationJob.objects.filter(pk__in=ids)
    waiting = list(jobs.active().filter(cancel_requested_at=None))
    jobs.request_cancel()
    for job in waiting:
        audit.record("generationjob.cancel", job, before={"status": job.status}, after={"reason": reason})
    return len(waiting)


def _disable_adapters(ids: Sequence[str], reason: str) -> int:
    adapters = list(Adapter.objects.enabled().filter(pk__in=[pk for pk in map(_as_id, ids) if pk]))
    Adapter.objects.filter(pk__in=[adapter.pk for adapter in adapters]).update(is_enabled=False)
    for adapter in adapters:
        audit.record("adapter.quarantine", adapter, before={"is_enabled": True}, after={"reason": reason})
    return len(adapters)


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
