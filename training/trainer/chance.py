"""Everything random in a training, as functions of a seed and of what it is for.

No generator lives longer than one call, so nothing of chance has to be saved: a training that goes on from a checkpoint
draws what it would have drawn without the break.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What something is drawn for. A number never changes its meaning, or old runs could not be repeated."""

    WEIGHTS = 1
    ORDER = 2
    CROP = 3
    SAMPLE = 4
    DROPOUT = 5
    VALIDATION = 6


def chance(purpose: Purpose, seed: int, *numbers: int) -> np.random.Generator:
    """Return a fresh generator that depends on nothing but its arguments, all of which are 0 or more."""
    return np.random.default_rng((purpose, seed, *numbers))


def torch_seed(purpose: Purpose, seed: int, *numbers: int) -> int:
    """Return a seed for the generator of torch, where a library draws from that one."""
    return int(chance(purpose, seed, *numbers).integers(2**63))


@dataclass(frozen=True)
class Draw:
    """What is drawn for one picture, each time it is shown."""

    timestep: int
    noise: torch.Tensor
    posterior: torch.Tensor
    """Standard normal: which of the latents it is that the encoder holds possible."""
    flip: float
    caption: float
    """From 0 to below 1, to be compared with a share."""


def draw(seed: int, number: int, shape: Sequence[int], *, timesteps: int, noise_offset: float = 0.0) -> Draw:
    """Return what is drawn for one showing of a picture.

    Args:
        seed: of the recipe.
        number: which showing it is, counted over the whole training. Batch size and accumulation play no part.
        shape: channels, height and width of the latents.
        timesteps: how many the noise schedule of the model has.
        noise_offset: how strongly each channel is shifted as a whole, so that a model can learn to change the mean
            brightness (after N. Guttenberg, "Diffusion with Offset Noise", 2023).
    """
    generator = chance(Purpose.SAMPLE, seed, number)
    timestep = int(generator.integers(timesteps))
    flip, caption = generator.random(2)
    noise = _normal(generator, shape)
    posterior = _normal(generator, shape)
    # Last and always, so that with another offset everything else stays as it was.
    offset = _normal(generator, (shape[0], 1, 1))
    return Draw(timestep, noise + noise_offset * offset, posterior, float(flip), float(caption))


def fixed_noise(content: str, index: int, shape: Sequence[int]) -> torch.Tensor:
    """Return the noise by which a picture is measured. It is the same in all trainings.

    Args:
        content: the SHA-256 of the picture.
        index: which of its measurements.
        shape: channels, height and width of the latents.
    """
    return _normal(chance(Purpose.VALIDATION, 0, int(content[:15], 16), index), shape)


def crop_place(seed: int, content: str) -> tuple[float, float]:
    """Return where a picture is cropped, from 0 to below 1 in both directions: drawn once for each picture."""
    x, y = chance(Purpose.CROP, seed, int(content[:15], 16)).random(2)
    return float(x), float(y)


def _normal(generator: np.random.Generator, shape: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))
