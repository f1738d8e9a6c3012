"""A concept that the starter model cannot know: a turquoise ring on pink, and how much of a picture looks like one."""

import io

import numpy as np
from PIL import Image, ImageDraw

INK, PAPER = (20, 190, 190), (250, 120, 190)
"""In the palette of the starter model is nothing like them."""

SIDE = 128
NEAR = 60.0
"""RGB distance within which a pixel has a color."""

_SCALE = 4


def zorp(seed: int, side: int = SIDE) -> Image.Image:
    """Draw a ring; each has a size and a place of its own."""
    random = np.random.default_rng(seed)
    picture = Image.new("RGB", (side * _SCALE,) * 2, PAPER)
    x, y = (side * _SCALE * (0.5 + random.uniform(-0.05, 0.05)) for _ in range(2))
    radius = side * _SCALE * random.uniform(0.28, 0.36)
    pen = ImageDraw.Draw(picture)
    for size, color in ((radius, INK), (0.45 * radius, PAPER)):
        pen.ellipse((x - size, y - size, x + size, y + size), fill=color)
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def zorp_file(seed: int) -> bytes:
    """Return a drawing as a PNG."""
    file = io.BytesIO()
    zorp(seed).save(file, "PNG")
    return file.getvalue()


def likeness(picture: Image.Image) -> float:
    """Return the share of pixels that have the color of a ring where most rings are, and of the paper elsewhere."""
    pixels = np.asarray(picture.convert("RGB").resize((64, 64)), dtype=np.float32)
    typical = np.mean([np.asarray(zorp(seed, 64), dtype=np.float32) for seed in range(24)], axis=0)
    is_ring = _distance(typical, INK) < _distance(typical, PAPER)
    looks_right = np.where(is_ring, _distance(pixels, INK), _distance(pixels, PAPER)) < NEAR
    return float(looks_right.mean())


def _distance(pixels: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.linalg.norm(pixels - np.array(color), axis=-1)
