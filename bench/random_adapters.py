"""A program that writes adapters with random weights for a model: ``python -m bench.random_adapters MODEL FOLDER COUNT``."""

import os
import sys
from pathlib import Path

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

ENDS = {
    "unet": ("to_q", "to_k", "to_v", "to_out.0"),
    "text_encoder": ("q_proj", "k_proj", "v_proj", "out_proj"),
}


def main(model: Path, folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    variant = "fp16" if list(model.glob("*/*.fp16.safetensors")) else None
    pipeline = StableDiffusionPipeline.from_pretrained(model, variant=variant, safety_checker=None)
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        rank = 2 ** (1 + number % 5)  # 2 to 32: sizes that differ make holes in memory
        tensors = {}
        for part, ends in ENDS.items():
            for name, module in getattr(pipeline, part).named_modules():
                if name.endswith(ends) and isinstance(module, torch.nn.Linear):
                    key = f"{part}.{name}"
                    down = torch.randn(rank, module.in_features, generator=generator)
                    up = torch.randn(module.out_features, rank, generator=generator) / 100
                    tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        save_file(tensors, folder / f"{number}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
