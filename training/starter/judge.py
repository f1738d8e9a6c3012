"""Says what a picture of one shape on a plain background shows, by measurement and without a neural network.

Colors are the nearest palette colors of the border and of the shape; the shape is the template that overlaps best.
Needs Pillow and NumPy only.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from training.starter.drawings import COLORS, PICTURE_SIZE, SHAPES, Combination, shape_mask

BORDER = 3
"""Pixels along each edge that no drawn shape reaches."""

MIN_CONTRAST = 45.0
"""RGB distance from the background below which nothing is a shape: half of that between the closest two colors."""

MIN_OVERLAP = 0.75
"""Intersection over union below which a picture shows no shape at all. Clean drawings reach 0.9 and more."""

_TEMPLATE_SIZES = range(28, 57, 2)
_NUDGES = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a picture shows; no shape or color where nothing stands out enough. Overlap is from 0 to 1."""

    shape: str | None
    color: str | None
    background: str
    overlap: float = 0.0

    def agrees_with(self, combination: Combination) -> dict[str, bool]:
        """Compare with what was asked for, property by property."""
        return {
            "foreground": self.color == combination.color,
            "background": self.background == combination.background,
            "shape": self.shape == combination.shape,
        }


def judge(image: Image.Image) -> Verdict:
    """Look at one picture of 64 x 64 pixels.

    Raises:
        ValueError: the picture has another size.
    """
    if image.size != (PICTURE_SIZE, PICTURE_SIZE):
        raise ValueError(f"the judge looks at pictures of {PICTURE_SIZE} x {PICTURE_SIZE} pixels only")
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    background = np.median(pixels[_border()], axis=0)
    contrast = np.linalg.norm(pixels - background, axis=-1)
    # The strongest pixels may be noise; the 40th-strongest belongs to even the smallest shape.
    strength = np.sort(contrast, axis=None)[-40]
    if strength < MIN_CONTRAST:
        return Verdict(None, None, _nearest_color(background))
    mask = contrast > strength / 2
    color = np.median(pixels[mask], axis=0)
    shape, overlap = _best_shape(mask)
    return Verdict(
        shape if overlap >= MIN_OVERLAP else None, _nearest_color(color), _nearest_color(background), overlap
    )


def _nearest_color(rgb: np.ndarray) -> str:
    return min(COLORS, key=lambda name: float(np.linalg.norm(rgb - np.array(COLORS[name]))))


def _best_shape(mask: np.ndarray) -> tuple[str, float]:
    """Return the shape whose template overlaps the mask best, over sizes and small shifts, and how well."""
    names, templates, areas = _templates()
    centered = _center(mask).ravel().astype(np.float32)
    shared = templates @ centered
    overlaps = shared / (areas + centered.sum() - shared)
    best = int(overlaps.argmax())
    return names[best], float(overlaps[best])


@cache
def _templates() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the shape's name, the mask (4096,) and the area in pixels of each template."""
    names, masks = [], []
    for shape in SHAPES:
        for size in _TEMPLATE_SIZES:
            centered = _center(shape_mask(shape, size) > 127)
            for nudge in _NUDGES:
                names.append(shape)
                masks.append(np.roll(centered, nudge, axis=(0, 1)).ravel())
    templates = np.array(masks, dtype=np.float32)
    return names, templates, templates.sum(axis=1)


def _center(mask: np.ndarray) -> np.ndarray:
    """Shift a mask by whole pixels so that its center of mass is the middle of the picture."""
    rows, columns = np.nonzero(mask)
    middle = (PICTURE_SIZE - 1) / 2
    return np.roll(mask, (round(middle - rows.mean()), round(middle - columns.mean())), axis=(0, 1))


@cache
def _border() -> np.ndarray:
    border = np.ones((PICTURE_SIZE, PICTURE_SIZE), dtype=bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    return border
