"""The parameters of a picture as text that travels in its file."""

import json
from pathlib import Path
from typing import Any

import PIL.Image

import imagehub
from generation.models import GenerationJob

SCHEMA = 1
KEYWORD = "imagehub"
"""Of the text chunk with the parameters as JSON."""


def infotext(job: GenerationJob, *, seed: int) -> str:
    """Return the parameters in the form that AUTOMATIC1111's web UI writes, and most tools read."""
    lines = [job.prompt]
    if job.negative_prompt:
        lines.append(f"Negative prompt: {job.negative_prompt}")
    values = {
        "Steps": job.steps,
        "Sampler": job.scheduler or "model default",
        "CFG scale": f"{job.guidance_scale:g}",
        "Seed": seed,
        "Size": f"{job.width}x{job.height}",
        "Model": job.base_model.name,
        **_strength(job),
        **_loras(job),
        "Version": f"ImageHub {imagehub.__version__}",
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in values.items()))
    return "\n".join(lines)


def parameters_json(job: GenerationJob, *, seed: int) -> str:
    """Return the same parameters as JSON, under the names of our API."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "generator": f"ImageHub {imagehub.__version__}",
            "prompt": job.prompt,
            "negative_prompt": job.negative_prompt,
            "seed": seed,
            "steps": job.steps,
            "width": job.width,
            "height": job.height,
            "guidance_scale": job.guidance_scale,
            "scheduler": job.scheduler or None,
            "base_model": job.base_model.name,
            "init_image": str(job.init_image_id) if job.init_image_id else None,
            "strength": job.strength,
            # The file travels: where an adapter lies on this machine stays here.
            "loras": [{name: lora.get(name) for name in ("id", "name", "weight")} for lora in job.loras],
        },
        ensure_ascii=False,
    )


def read_parameters(file: Path) -> dict[str, Any] | None:
    """Return what :func:`parameters_json` wrote into a picture; None where it is not there, or no PNG of ours.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with PIL.Image.open(file, formats=("PNG",)) as picture:
            told = json.loads(getattr(picture, "text", {}).get(KEYWORD, "null"))
    except (PIL.UnidentifiedImageError, ValueError):
        return None
    return told if isinstance(told, dict) and told.get("schema") == SCHEMA else None


def _strength(job: GenerationJob) -> dict[str, str]:
    return {} if job.strength is None else {"Denoising strength": f"{job.strength:g}"}


def _loras(job: GenerationJob) -> dict[str, str]:
    """Return the adapters as one quoted value, in which no name can end it or begin another."""
    used = [lora for lora in job.loras if lora.get("weight")]
    if not used:
        return {}
    text = ", ".join(f"{lora.get('name', '')}: {lora['weight']:g}" for lora in used)
    return {"LoRAs": json.dumps(text, ensure_ascii=False)}
