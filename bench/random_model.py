"""A program that saves the starter model's architecture with random weights: ``python -m bench.random_model FOLDER``."""

import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}

import torch

from training.starter import architecture


def main(folder: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = architecture.Sizes()
    tokenizer = architecture.build_tokenizer()
    pipeline: Any = architecture.build_pipeline(
        tokenizer,
        architecture.build_text_encoder(tokenizer, sizes),
        architecture.build_vae(sizes),
        architecture.build_unet(sizes),
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder, variant="fp16")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
