"""Buckets: the few sizes in which the pictures of a data set are trained, so that each batch has one shape.

A picture is scaled until it covers its bucket, and what stands over is cropped; it is never distorted. Which bucket
that is depends on nothing but its size and the recipe, so the same pictures always get the same buckets. The idea is
that of NovelAI's aspect ratio bucketing, in the manner of sd-scripts without upscaling.
"""

import math
from collections import Counter
from collections.abc import Iterable
from itertools import product

Size = tuple[int, int]
"""Width and height in pixels."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels of the picture as it is stored."""

LONGEST = 2
"""No side of a bucket is longer than so many times the resolution: a narrower picture is cropped instead."""

MIDDLE = (0.5, 0.5)


def bucket_of(size: Size, *, resolution: int, step: int, allow_upscaling: bool = False) -> Size | None:
    """Return the bucket of a picture: the one among those around its scaled size that crops least.

    The sides of a bucket are multiples of ``step``, its area is at most ``resolution`` squared, and without
    ``allow_upscaling`` neither side is longer than that of the picture.

    Returns None where there is none: a side is shorter than ``step``, and may not be scaled up.
    """
    width, height = size
    area = resolution * resolution
    scale = math.sqrt(area / (width * height))
    if not allow_upscaling:
        if min(size) < step:
            return None
        scale = min(scale, 1.0)
    longest = LONGEST * resolution // step * step
    choices = [
        (bucket_width, bucket_height)
        for bucket_width, bucket_height in product(
            _around(width * scale, step, longest), _around(height * scale, step, longest)
        )
        if bucket_width * bucket_height <= area
        and (allow_upscaling or (bucket_width <= width and bucket_height <= height))
    ]
    if not choices:  # a strip whose short side was raised to one step: the long one gives way
        short = step
        long = max(step, min(longest, area // step // step * step))
        choices = [(long, short) if width >= height else (short, long)]
    return min(choices, key=lambda bucket: (cropped_share(size, bucket), -bucket[0] * bucket[1], bucket))


def crop_box(size: Size, bucket: Size, at: tuple[float, float] = MIDDLE) -> Box:
    """Return the part of a picture that is trained: of the shape of the bucket, and as large as fits.

    It is what Pillow takes as ``box`` of ``resize(bucket, box=…)``, which scales and crops in one go.

    Args:
        size: of the picture.
        bucket: of the same picture.
        at: where the part lies in what there is to choose from, from 0 to 1 in each direction; the middle if not told.
    """
    width, height = size
    scale = max(bucket[0] / width, bucket[1] / height)
    part_width, part_height = min(width, bucket[0] / scale), min(height, bucket[1] / scale)
    left, top = (width - part_width) * at[0], (height - part_height) * at[1]
    return left, top, left + part_width, top + part_height


def cropped_share(size: Size, bucket: Size) -> float:
    """Return how much of a picture is cut off, from 0 to below 1."""
    left, top, right, bottom = crop_box(size, bucket)
    return max(0.0, 1.0 - (right - left) * (bottom - top) / (size[0] * size[1]))


def histogram(buckets: Iterable[Size]) -> dict[Size, int]:
    """Return how many pictures each bucket has, in the order of their widths and heights."""
    return dict(sorted(Counter(buckets).items()))


def batches_in(counts: Iterable[int], batch_size: int) -> int:
    """Return into how many batches buckets of so many pictures are cut: none of them mixes two."""
    return sum(math.ceil(count / batch_size) for count in counts)


def _around(length: float, step: int, longest: int) -> set[int]:
    """Return the multiples of a step below and above a length, within bounds."""
    # A tiny excess is no reason for the next multiple: 512 times a square root is seldom 512 again.
    below = math.floor(length / step + 1e-9) * step
    above = math.ceil(length / step - 1e-9) * step
    return {min(max(side, step), longest) for side in (below, above)}
