"""A program: steps of a model as large as a real one, with random weights. ``python -m bench.large_step OPTIONS``.

The denoiser is built from the published configuration of Stable Diffusion 1.5 or XL; what it is given has the shapes of 512
or 1024 px pictures and their captions. It prints one line: seconds of each step, and the most memory that was used.
"""

import argparse
import json
import os
import time
from types import SimpleNamespace
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "DIFFUSERS_VERBOSITY": "error"}

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from training.pipelines.hardware import Hardware, choose_hardware
from training.recipe import Recipe
from training.trainer.batches import Pictures
from training.trainer.encoding import Latents
from training.trainer.examples import Example
from training.trainer.memory import Plan
from training.trainer.model import Model, Texts
from training.trainer.networks import add_adapter, trainable
from training.trainer.processes import Processes
from training.trainer.progress import peak_memory_bytes
from training.trainer.stepping import Stepper

SD15: dict[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SHAPES = {"sd15": (SD15, 512), "sdxl": (SDXL, 1024)}


class Bare(Model):
    """A model of which nothing but the denoiser is there: what it would read is drawn."""

    def __init__(self, unet: Any, hardware: Hardware, *, is_xl: bool) -> None:
        self.pipeline = SimpleNamespace()
        self.hardware, self.unet, self.factor, self._is_xl = hardware, unet, 8, is_xl
        self.text_encoders = {}
        self.schedule = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
        unet.requires_grad_(False)


def main(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = choose_hardware(options.device).device
    config, side = SHAPES[options.model]
    recipe = Recipe(
        steps=100,
        rank=16,
        alpha=16.0,
        batch_size=options.batch,
        resolution=side,
        random_flip=False,
        target_modules="transformer",
        gradient_checkpointing=options.checkpointing,
    )
    plan = Plan.of(recipe, device)
    with torch.device(device):
        torch.set_default_dtype(plan.dtype)
        unet: Any = UNet2DConditionModel(**config)
        torch.set_default_dtype(torch.float32)
    if device.type == "cuda":
        unet.to(memory_format=torch.channels_last)
    is_xl = options.model == "sdxl"
    model = Bare(unet, Hardware(device, plan.dtype), is_xl=is_xl)
    add_adapter({"unet": unet}, recipe)
    examples = [
        Example(f"{number:064x}", str(number), 1, (side, side), (side, side), (0, 0, side, side))
        for number in range(options.batch)
    ]
    shape = 4, side // 8, side // 8
    latents = {(one.sha256, False): Latents(torch.randn(shape), torch.full(shape, 0.1)) for one in examples}
    width = config["cross_attention_dim"]
    texts = {
        one.caption: Texts(
            torch.randn(1, 77, width, dtype=plan.dtype),
            torch.randn(1, 1280, dtype=plan.dtype) if is_xl else None,
        )
        for one in examples
    }
    pictures = Pictures(model, recipe, latents, texts)
    stepper = Stepper(model, recipe, plan, pictures, examples, Processes(options.device))
    seconds = []
    for step in range(options.steps):
        started_at = time.perf_counter()
        stepper.step(step)
        seconds.append(time.perf_counter() - started_at)
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "precision": plan.precision,
        "seconds": seconds,
        "peak_bytes": peak_memory_bytes(),
        "weights": sum(weight.numel() for weight in trainable([unet])),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=SHAPES, default="sd15")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true")
    print(json.dumps(main(parser.parse_args())), flush=True)
