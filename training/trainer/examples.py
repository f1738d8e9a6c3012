"""The pictures and captions of a data set, as a training shows them."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from training.datasets.buckets import MIDDLE, Box, Size, crop_box
from training.datasets.manifest import Entry, Manifest
from training.datasets.pixels import on_white
from training.pipelines.failures import FailureCode, RequestFailed
from training.recipe import Recipe
from training.trainer.chance import crop_place


@dataclass(frozen=True)
class Example:
    """One picture, cut to its bucket, and its caption. Sizes are width and height in pixels."""

    sha256: str
    caption: str
    repeats: int
    size: Size
    bucket: Size
    box: Box
    """The part of the picture that is shown: see :func:`training.datasets.buckets.crop_box`."""

    def conditions(self, *, is_flipped: bool) -> tuple[int, ...]:
        """Return what SDXL is told of a picture.

        Its height and width, what was cut off above and left of the part that is shown (in pixels of the scaled
        picture), and the height and width of that part.
        """
        left, top, right, _ = self.box
        scale = self.bucket[0] / (right - left)
        if is_flipped:
            left = self.size[0] - right
        return (
            self.size[1],
            self.size[0],
            round(top * scale),
            round(left * scale),
            self.bucket[1],
            self.bucket[0],
        )


def examples(manifest: Manifest, recipe: Recipe, role: str) -> tuple[Example, ...]:
    """Return the examples with a role (``train`` or ``validation``), in the order of the manifest."""
    is_drawn = role == "train" and not recipe.center_crop
    return tuple(
        _example(entry, crop_place(recipe.seed, entry.sha256) if is_drawn else MIDDLE)
        for entry in manifest.of_role(role)
    )


def pixels(example: Example, folder: Path, *, is_flipped: bool) -> torch.Tensor:
    """Return what is shown of a picture: 3 x height x width, from -1 to 1. What shines through is white.

    Args:
        example: which one.
        folder: where the pictures lie, each called by its SHA-256.
        is_flipped: left and right change places.

    Raises:
        RequestFailed: it is missing, or is not the picture of the manifest (``dataset_invalid``).
    """
    try:
        content = (folder / example.sha256).read_bytes()
    except OSError as error:
        raise _invalid(example, "is missing") from error
    if hashlib.sha256(content).hexdigest() != example.sha256:
        raise _invalid(example, "has other content than when the run was made")
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.size != example.size:
                raise _invalid(example, "has another size than the manifest says")
            picture = on_white(image).resize(example.bucket, Image.Resampling.LANCZOS, box=example.box)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _invalid(example, "cannot be decoded") from error
    if is_flipped:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    array = np.asarray(picture, dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _example(entry: Entry, at: tuple[float, float]) -> Example:
    return Example(
        sha256=entry.sha256,
        caption=entry.caption,
        repeats=entry.repeats,
        size=entry.size,
        bucket=entry.bucket,
        box=crop_box(entry.size, entry.bucket, at),
    )


def _invalid(example: Example, what: str) -> RequestFailed:
    return RequestFailed(FailureCode.DATASET_INVALID, f"The picture {example.sha256[:12]} {what}.")
