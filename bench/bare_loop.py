"""A program: the loop that somebody with only diffusers would write. ``python -m bench.bare_loop MODEL``.

It loads the model once and then, for each line on standard input (a list of pictures and a folder), makes them and
answers with one line. The bench lets it and ImageHub take turns.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}

import torch
from diffusers import StableDiffusionPipeline

from bench.subject import GUIDANCE_SCALE, SIDE, STEPS


def main(model: Path) -> None:
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    variant = "fp16" if list(model.glob("*/*.fp16.safetensors")) else None
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, dtype=torch.float32, variant=variant, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        folder = Path(task["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        digests = []
        started_at, cpu_before = time.perf_counter(), time.process_time()
        for picture in task["pictures"]:
            image = pipeline(
                picture["prompt"],
                width=SIDE,
                height=SIDE,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE_SCALE,
                generator=torch.Generator("cpu").manual_seed(picture["seed"]),
            ).images[0]
            image.save(folder / f"{picture['seed']}.png")
            digests.append(hashlib.sha256(image.tobytes()).hexdigest())
        seconds, cpu = time.perf_counter() - started_at, time.process_time() - cpu_before
        print(json.dumps({"seconds": seconds, "cpu": cpu, "digests": digests}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
