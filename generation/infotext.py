"""The parameters of a picture as text that travels in its file."""

import json

import imagehub
from generation.models import GenerationJob

SCHEMA = 1


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
            # The file travels: where an adapter lies on this machine stays here.
            "loras": [{name: lora.get(name) for name in ("id", "name", "weight")} for lora in job.loras],
        },
        ensure_ascii=False,
    )
