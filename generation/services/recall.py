"""From a picture back to the request that makes it again."""

from typing import Any

from albums.models import Image
from albums.services import ImageFileMissing, local_image
from generation.infotext import read_parameters
from generation.models import GenerationJob
from generation.services.stacks import as_id, find_adapters
from imagehub.errors import NotReady
from training.models import BaseModel
from training.services import AdapterMissing


class NotRecallable(NotReady):
    code = "not_recallable"
    title = "The picture cannot be made again"


def recall(image: Image) -> dict[str, Any]:
    """Return a body for ``POST /api/generate`` that makes the same pixels on the same machine.

    What counts is the job, whatever has been said about the image since; where the job has gone, the image's own values,
    and what its file says.

    Raises:
        NotRecallable: it was not generated, not all of its parameters are known, or something it was made with is not
            here any more. All that is missing is named.
    """
    if image.source_kind != Image.SourceKind.GENERATION and image.source_id is None and image.seed is None:
        raise NotRecallable("The picture was not generated here, and nothing is known of how it was made.")
    jobs = GenerationJob.objects.select_related("base_model", "init_image")
    job = jobs.filter(pk=image.source_id).first() if image.source_id else None
    missing: list[str] = []
    body = _of_job(job, missing) if job else _of_image(image, missing)
    body["loras"] = _stack(job.loras if job else image.loras, missing)
    if not BaseModel.objects.enabled().filter(name=body["base_model"]).exists():
        missing.append(f"The base model “{body['base_model']}” is not here, or not enabled.")
    if missing:
        raise NotRecallable(" ".join(missing))
    return body | {"seed": image.seed, "n": 1, "visibility": image.visibility}


def _of_job(job: GenerationJob, missing: list[str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
        "steps": job.steps,
        "width": job.width,
        "height": job.height,
        "guidance_scale": job.guidance_scale,
        "scheduler": job.scheduler or None,
        "base_model": job.base_model.name,
    }
    if job.strength is not None:
        if job.init_image is None or job.init_image.deleted_at:
            missing.append("The image that it started from has been deleted.")
        body |= {"init_image": job.init_image_id and str(job.init_image_id), "strength": job.strength}
    return body


def _of_image(image: Image, missing: list[str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": image.prompt,
        "negative_prompt": image.negative_prompt,
        "steps": image.steps,
        "width": image.width,
        "height": image.height,
        "guidance_scale": image.guidance_scale,
        "scheduler": image.scheduler or None,
        "base_model": image.base_model,
    }
    needed = {**body, "seed": image.seed}
    unknown = [
        name
        for name in ("prompt", "seed", "steps", "guidance_scale", "base_model")
        if needed[name] in (None, "")
    ]
    if unknown:
        missing.append(f"It is not known of it: {', '.join(unknown)}.")
    if image.source_kind == Image.SourceKind.GENERATION:
        body |= _start_of(image, missing)
    return body


def _start_of(image: Image, missing: list[str]) -> dict[str, Any]:
    """Return which image a picture started from, and how far it went from there: its own file says so."""
    try:
        with local_image(image) as file:
            told = read_parameters(file)
    except (ImageFileMissing, OSError):
        told = None
    if told is None:
        missing.append("Its file is gone or does not say whether it started from another image.")
        return {}
    strength = told.get("strength")
    if strength is None:
        return {}
    origin = Image.objects.live().filter(pk=as_id(told.get("init_image"))).first()
    if origin is None:
        missing.append("The image that it started from has been deleted.")
    return {"init_image": origin and str(origin.pk), "strength": strength}


def _stack(loras: list[dict[str, Any]], missing: list[str]) -> list[dict[str, Any]]:
    used = [lora for lora in loras if lora.get("weight") != 0]  # weight 0 is as good as absent
    try:
        found = find_adapters(used)
    except AdapterMissing as error:
        missing.append(str(error))
        return []
    return [{"id": str(adapter.pk), "weight": lora.get("weight", 1.0)} for adapter, lora in found]
