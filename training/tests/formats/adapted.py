"""Pipelines with an adapter in them that nobody has trained, but that changes what they draw."""

import torch

from training.tests.formats.runs import ALPHA, RANK
from training.tests.weight_files import add_adapter


def flat(states) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter by their names in a checkpoint."""
    return {f"{part}.{name}": tensor for part, state in states.items() for name, tensor in state.items()}


def give_adapter(pipeline, **options) -> dict[str, torch.Tensor]:
    """Wrap a pipeline as a trainer does, with factors that change something; return its tensors."""
    names = ("unet", "text_encoder", "text_encoder_2")
    parts = {name: part for name in names if (part := getattr(pipeline, name, None)) is not None}
    torch.manual_seed(1)
    return flat(add_adapter(parts, rank=RANK, alpha=ALPHA, **options))


def draw(pipeline) -> torch.Tensor:
    """Return a picture as numbers from 0 to 1."""
    pipeline.set_progress_bar_config(disable=True)
    pixels = pipeline(
        "a zorp",
        num_inference_steps=4,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    return torch.from_numpy(pixels)
