"""Everything that writes about generation, and the failures it can meet."""

import secrets
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Sum

from albums.models import Album, Image
from albums.services import adopt_image_file, save_image
from generation.infotext import infotext, parameters_json
from generation.models import MAX_SEED, GenerationJob
from generation.warm_engine import EngineCancelled, get_engine
from imagehub import storage
from imagehub.accounts import audit
from imagehub.config import get_config
from imagehub.errors import Conflict, ImageHubError, NotReady
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.lease import JobCancelled, JobFailed, Lease, WorkerStopping
from imagehub.jobs.queue import ring
from training.services import locate_base_model


class AlreadyFinished(Conflict):
    code = "already_finished"
    title = "The job has finished"


class KeyUsedDifferently(Conflict):
    code = "idempotency_key_reused"
    title = "The Idempotency-Key was used for another request"


class QueueFull(NotReady):
    code = "queue_full"
    title = "Too many pictures wait already"


def draw_seed() -> int:
    """Return a random seed, for requests that name none. It is stored like any other."""
    return secrets.randbelow(MAX_SEED + 1)


def submit_generation(job: GenerationJob) -> tuple[GenerationJob, bool]:
    """Save a new job, and queue it. Returns the job, and whether it is new.

    A job with an ``idempotency_key`` that its owner has used before is answered with the earlier job.

    Raises:
        KeyUsedDifferently: the earlier job came from a different request.
        QueueFull: as many pictures wait as may.
        ValidationError: a value is out of range.
    """
    if job.idempotency_key and (earlier := _earlier(job)):
        return earlier, False
    job.full_clean(validate_constraints=False)
    try:
        with transaction.atomic():
            waiting = GenerationJob.objects.queued().aggregate(images=Sum("n"))["images"] or 0
            if waiting + job.n > get_config().generation.max_queued:
                raise QueueFull(f"{waiting} pictures wait already. Try again when some of them are made.")
            job.save(force_insert=True)
            GenerationJob.objects.filter(pk=job.pk).enqueue()
            ring(Cluster.GENERATION)
    except IntegrityError:
        if job.idempotency_key and (earlier := _earlier(job)):
            return earlier, False  # the same request, sent twice at once
        raise
    job.refresh_from_db()
    return job, True


def _earlier(job: GenerationJob) -> GenerationJob | None:
    earlier = GenerationJob.objects.filter(owner=job.owner, idempotency_key=job.idempotency_key).first()
    if earlier is not None and earlier.body_digest != job.body_digest:
        raise KeyUsedDifferently("This Idempotency-Key belongs to a request with another body.")
    return earlier


def cancel_generation_job(job: GenerationJob) -> GenerationJob:
    """Cancel a job: a waiting one ends at once, a running one is asked to stop.

    Raises:
        AlreadyFinished: there is nothing left to cancel.
    """
    with transaction.atomic():
        reached = GenerationJob.objects.filter(pk=job.pk).request_cancel()
        before = {"status": job.status}
        job.refresh_from_db()
        if reached:
            audit.record("generationjob.cancel", job, before=before, after={"status": job.status})
    if job.is_finished and not reached:
        raise AlreadyFinished(f"The job is {job.status} already.")
    return job


def generate_images(job: GenerationJob, lease: Lease) -> None:
    """Make the pictures of a claimed job that are not there yet, and complete it.

    Each picture's file is stored before its row, and the row is written under the lease's fence, so a worker that dies or
    is overtaken at any point leaves every picture there once.

    Raises:
        JobFailed: a picture cannot be made or stored; those before it are kept.
        JobCancelled, WorkerStopping, LeaseLost: see ``Lease``.
    """
    staging = f"generation-{job.pk}-{job.token}"  # a worker that was overtaken must not touch its successor's
    try:
        _generate_missing(job, lease, storage.staging_dir(staging))
    finally:
        storage.delete_staging_dir(staging)


def _generate_missing(job: GenerationJob, lease: Lease, staging: Path) -> None:
    stored = set(Image.objects.made_by(job.pk).values_list("source_index", flat=True))
    missing = [index for index in range(job.n) if index not in stored]
    try:
        for index in missing:
            lease.raise_if_stopping()
            image = _image(job, index)
            _render(job, lease, image, staging / f"{index}.png")
            with transaction.atomic():
                lease.renew()
                # Looked up only now: whoever deleted the album meanwhile did not mean the picture.
                save_image(image, album=Album.objects.filter(pk=job.album_id).first())
                if index == missing[-1]:
                    lease.complete()
        if not missing:
            lease.complete()
    except JobFailed:
        raise
    except ImageHubError as error:
        raise JobFailed(error.code, str(error)) from error


def _image(job: GenerationJob, index: int) -> Image:
    seed = job.image_seed(index)
    return Image(
        owner=job.owner,
        name=f"{job.base_model.name}-{seed}.png",
        visibility=job.visibility,
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        seed=seed,
        steps=job.steps,
        guidance_scale=job.guidance_scale,
        scheduler=job.scheduler,
        base_model=job.base_model.name,
        loras=job.loras,
        source_kind=Image.SourceKind.GENERATION,
        source_id=job.pk,
        source_index=index,
    )


def _render(job: GenerationJob, lease: Lease, image: Image, output: Path) -> None:
    """Have the engine make one picture, and store its file."""
    total = job.n * job.steps
    lease.report(step=image.source_index * job.steps, total_steps=total, message="Starting the engine")

    def on_event(event: dict[str, Any]) -> None:
        match event:
            case {"event": "step", "step": int(step)}:
                step += image.source_index * job.steps
                lease.report(step=step, total_steps=total, message="Denoising")
            case {"event": "phase", "phase": "load"}:
                lease.report(
                    step=image.source_index * job.steps, total_steps=total, message="Loading the model"
                )

    try:
        get_engine(get_config().engine).render(
            _request(job, image, output),
            on_event=on_event,
            should_stop=lease.should_stop,
            sensitive=job.sensitive_texts(),
        )
    except EngineCancelled:
        raise JobCancelled if lease.cancel_requested else WorkerStopping from None
    adopt_image_file(image, output)


def _request(job: GenerationJob, image: Image, output: Path) -> dict[str, Any]:
    return {
        "model": locate_base_model(job.base_model),
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
        "seed": image.seed,
        "steps": job.steps,
        "width": job.width,
        "height": job.height,
        "guidance_scale": job.guidance_scale,
        "scheduler": job.scheduler or None,
        "output": str(output),
        "text": {
            "parameters": infotext(job, seed=image.seed),
            "imagehub": parameters_json(job, seed=image.seed),
        },
    }
