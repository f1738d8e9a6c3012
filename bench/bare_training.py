"""A program: the loops that somebody with only diffusers and peft would write. ``python -m bench.bare_training FOLDER WAY``.

It reads the folder of a run, so it has the same model, pictures, adapter and batch as the trainer. The way ``cached``
encodes pictures and captions before the first step; ``naive`` reads and encodes them in each step, as diffusers' own example
does. After each step it tells the time on standard output.
"""

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

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image


def main(folder: Path, way: str) -> None:
    torch.set_num_threads(1)
    run = json.loads((folder / "run.json").read_text())
    recipe, model = run["recipe"], Path(run["model"]["source"])
    entries = json.loads((folder / "manifest.json").read_text())["entries"]
    variant = "fp16" if list(model.glob("*/*.fp16.safetensors")) else None
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, dtype=torch.float32, variant=variant, safety_checker=None, requires_safety_checker=False
    )
    unet, vae, text_encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
    for part in (unet, vae, text_encoder):
        part.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(
            r=recipe["rank"],
            lora_alpha=recipe["alpha"],
            init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe["learning_rate"])
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)

    def read(entry: dict) -> torch.Tensor:
        with Image.open(folder / "images" / entry["sha256"]) as image:
            pixels = np.asarray(image.convert("RGB").resize(entry["bucket"]), dtype=np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1

    def encode(chosen: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            latents = vae.encode(torch.stack([read(entry) for entry in chosen])).latent_dist.sample()
            tokens = pipeline.tokenizer(
                [entry["caption"] for entry in chosen],
                padding="max_length",
                max_length=pipeline.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            return latents * vae.config.scaling_factor, text_encoder(tokens.input_ids)[0]

    cached = None
    if way == "cached":
        pairs = [encode([entry]) for entry in entries]
        cached = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
    unet.train()
    size = recipe["batch_size"]
    order: list[int] = []
    for step in range(1, recipe["steps"] + 1):
        while len(order) < size:
            order += torch.randperm(len(entries)).tolist()
        places, order = order[:size], order[size:]
        if cached is not None:
            latents, texts = cached[0][places], cached[1][places]
        else:
            latents, texts = encode([entries[place] for place in places])
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, schedule.config.num_train_timesteps, (size,))
        noisy = schedule.add_noise(latents, noise, timesteps)
        is_velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, timesteps) if is_velocity else noise
        loss = F.mse_loss(unet(noisy, timesteps, texts, return_dict=False)[0], target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"event": "step", "step": step, "ts": time.time()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
