"""What a picture looks like half-way: latents to colours by one small matrix, a few times a second.

Decoding them would take as long as several steps. The matrix is fitted once to each model, by asking its own VAE
what flat colours look like as latents, so it holds for any VAE, whatever it was trained on and however many channels it
has. Latents of other shapes than channels x height x width have no preview.
"""

import base64
import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image

logger = logging.getLogger(__name__)

LONGEST_SIDE_PX = 256

SECONDS_BETWEEN = 0.25

JPEG_QUALITY = 75

LEVELS = 5
"""Shades of each primary colour that the matrix is fitted to: 125 colours."""


class Previewer:
    """Makes the previews of one model."""

    def __init__(self, pipeline: Any) -> None:
        self._vae = getattr(pipeline, "vae", None)
        self._matrix: torch.Tensor | None = None
        self._last = 0.0

    def preview(self, latents: torch.Tensor) -> str | None:
        """Return a JPEG in base64, or None: it is too early for another one, or these latents have none.

        Args:
            latents: 1 x channels x height x width, as they are between two steps.
        """
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN or latents.ndim != 4 or self._vae is None:
            return None
        self._last = now
        try:
            if self._matrix is None:
                self._matrix = fit(self._vae)
            jpeg = _jpeg(_colours(latents[0], self._matrix))
        except Exception as error:  # noqa: BLE001 - whatever it is, no picture fails for its preview
            logger.warning("This model has no previews (%s)", type(error).__name__)
            self._vae = None
            return None
        return base64.b64encode(jpeg).decode("ascii")


def fit(vae: Any) -> torch.Tensor:
    """Return the matrix (channels + 1, for a constant, x 3) that turns latents into colours from -1 to 1.

    Raises:
        ValueError: this VAE turns colours into no numbers.
    """
    shades = torch.linspace(-1, 1, LEVELS)
    colours = torch.cartesian_prod(shades, shades, shades)
    with torch.inference_mode(), _in_full_precision(vae):
        flat = colours[:, :, None, None].expand(-1, -1, 64, 64).to(vae.device, vae.dtype)
        # A few at a time: this is meant to be small beside any picture.
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in flat.split(5)])
    if not torch.isfinite(latents).all():
        raise ValueError("latents out of range")
    middle = latents[..., latents.shape[2] // 2, latents.shape[3] // 2].float().cpu()
    scale, shift = vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0
    middle = (middle - shift) * scale
    known = torch.cat([middle, torch.ones(len(middle), 1)], dim=1)
    # With a touch of regularisation, for a VAE whose channels depend on one another.
    square = known.T @ known + 1e-4 * torch.eye(known.shape[1])
    return torch.linalg.solve(square, known.T @ colours)


@contextmanager
def _in_full_precision(vae: Any) -> Iterator[None]:
    """Let a VAE that overflows in half precision, as SDXL's does, work in single: there and back loses nothing."""
    is_half = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if is_half:
        vae.to(dtype=torch.float32)
    try:
        yield
    finally:
        if is_half:
            vae.to(dtype=torch.float16)


def _colours(latents: torch.Tensor, matrix: torch.Tensor) -> np.ndarray:
    """Return height x width x 3 bytes."""
    known = latents.float().cpu().movedim(0, -1)
    colours = known @ matrix[:-1] + matrix[-1]
    return ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()


def _jpeg(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(pixels)
    scale = min(8.0, LONGEST_SIDE_PX / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
