"""The pictures the starter model learns from: one colored shape on a plain background, with a caption.

Needs Pillow and NumPy only, so that tests and LoRA training data can draw without loading torch or Django.
All randomness comes from the NumPy generator that the caller passes in.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

PICTURE_SIZE = 64
"""Width and height of a drawing in pixels."""

SUPERSAMPLING = 8
"""Shapes are drawn this many times larger and averaged down, which is the anti-aliasing."""

RGB = tuple[int, int, int]

# Far apart in RGB (at least 90 apart), so that the nearest palette color of a pixel is never in doubt.
COLORS: dict[str, RGB] = {
    "red": (220, 30, 35),
    "green": (30, 160, 60),
    "blue": (35, 75, 220),
    "yellow": (250, 220, 40),
    "purple": (140, 45, 175),
    "orange": (245, 130, 25),
    "white": (250, 250, 250),
    "black": (15, 15, 18),
}

# Diameter of a shape and its offset from the center, in pixels: varied enough that a picture is not
# a lookup, small enough that every shape stays whole and well above the 8-pixel grid of the latents.
SIZE_RANGE = (34, 48)
MAX_SHIFT = 4

Point = tuple[float, float]
Pen = Callable[[ImageDraw.ImageDraw, Callable[[float, float], Point]], None]


@dataclass(frozen=True, slots=True, order=True)
class Combination:
    """What a caption can say about a picture."""

    shape: str
    color: str
    background: str

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn or seen.

        Raises:
            ValueError: an unknown shape or color, or a shape in the color of its background.
        """
        if self.shape not in SHAPES:
            raise ValueError(f"unknown shape {self.shape!r}; one of {', '.join(SHAPES)}")
        for name in (self.color, self.background):
            if name not in COLORS:
                raise ValueError(f"unknown color {name!r}; one of {', '.join(COLORS)}")
        if self.color == self.background:
            raise ValueError("a shape in the color of its background cannot be seen")


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture: a combination, the shape's diameter and its offset from the center, both in pixels."""

    shape: str
    color: str
    background: str
    size: float = 41.0
    shift: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuse what does not fit.

        Raises:
            ValueError: an impossible combination, or a shape that would leave the picture.
        """
        Combination(self.shape, self.color, self.background)
        if self.size <= 0 or self.size / 2 + max(map(abs, self.shift)) > PICTURE_SIZE / 2:
            raise ValueError("the shape must lie inside the picture")

    @property
    def combination(self) -> Combination:
        return Combination(self.shape, self.color, self.background)


@dataclass(frozen=True, slots=True)
class HeldOutPrompt:
    """A combination kept out of training, with the seed that its evaluation picture starts from."""

    combination: Combination
    seed: int


def draw(drawing: Drawing) -> Image.Image:
    """Draw one anti-aliased RGB picture of 64 x 64 pixels."""
    mask = Image.fromarray(shape_mask(drawing.shape, drawing.size, drawing.shift))
    picture = Image.new("RGB", mask.size, COLORS[drawing.background])
    picture.paste(COLORS[drawing.color], mask=mask)
    return picture


def shape_mask(shape: str, size: float, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Return how much of each pixel a shape covers, uint8 (64, 64), 255 = all of it."""
    canvas = Image.new("L", (PICTURE_SIZE * SUPERSAMPLING,) * 2)

    def place(x: float, y: float) -> Point:
        """Turn shape coordinates (-1 to 1, y down) into pixels of the large canvas."""
        return (
            (PICTURE_SIZE / 2 + shift[0] + x * size / 2) * SUPERSAMPLING,
            (PICTURE_SIZE / 2 + shift[1] + y * size / 2) * SUPERSAMPLING,
        )

    SHAPES[shape](ImageDraw.Draw(canvas), place)
    return np.asarray(canvas.reduce(SUPERSAMPLING))


def all_combinations() -> list[Combination]:
    """List the 672 drawable combinations, in a fixed order."""
    return [
        Combination(shape, color, background)
        for shape in SHAPES
        for color in COLORS
        for background in COLORS
        if color != background
    ]


def held_out_prompts() -> list[HeldOutPrompt]:
    """List the 96 combinations that training never sees: eight of each shape, twelve of each color.

    For the n-th shape every color meets the background n % 7 + 1 places further round the palette, so
    each shape has each color and each background once, and no color pair is missing from more than two shapes.
    """
    names = list(COLORS)
    return [
        HeldOutPrompt(
            Combination(shape, color, names[(c + n % 7 + 1) % len(names)]), seed=1000 + n * len(names) + c
        )
        for n, shape in enumerate(SHAPES)
        for c, color in enumerate(names)
    ]


def training_combinations() -> list[Combination]:
    """List the 576 combinations that training may draw."""
    held_out = {prompt.combination for prompt in held_out_prompts()}
    return [combination for combination in all_combinations() if combination not in held_out]


def random_drawing(rng: np.random.Generator, combinations: Sequence[Combination]) -> Drawing:
    """Draw lots for one of the combinations, a size and a shift."""
    chosen = combinations[int(rng.integers(len(combinations)))]
    return Drawing(
        chosen.shape,
        chosen.color,
        chosen.background,
        size=float(rng.uniform(*SIZE_RANGE)),
        shift=(float(rng.uniform(-MAX_SHIFT, MAX_SHIFT)), float(rng.uniform(-MAX_SHIFT, MAX_SHIFT))),
    )


def random_scene(rng: np.random.Generator) -> Image.Image:
    """Draw one to four shapes of any size and any RGB color over each other: a picture without a caption.

    Autoencoder training mixes these in, so that it does not only know pictures that the palette can make.
    """
    picture = Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE), _random_color(rng))
    names = list(SHAPES)
    for _ in range(rng.integers(1, 5)):
        shift = (float(rng.uniform(-24, 24)), float(rng.uniform(-24, 24)))
        mask = shape_mask(names[rng.integers(len(names))], float(rng.uniform(12, 60)), shift)
        picture.paste(_random_color(rng), mask=Image.fromarray(mask))
    return picture


def _random_color(rng: np.random.Generator) -> RGB:
    red, green, blue = rng.integers(0, 256, size=3).tolist()
    return red, green, blue


def _polygon(*points: Point) -> Pen:
    def pen(canvas: ImageDraw.ImageDraw, place: Callable[[float, float], Point]) -> None:
        canvas.polygon([place(*point) for point in points], fill=255)

    return pen


def _disc(x: float, y: float, radius: float, fill: int = 255) -> Pen:
    def pen(canvas: ImageDraw.ImageDraw, place: Callable[[float, float], Point]) -> None:
        canvas.ellipse([place(x - radius, y - radius), place(x + radius, y + radius)], fill=fill)

    return pen


def _together(*pens: Pen) -> Pen:
    def pen(canvas: ImageDraw.ImageDraw, place: Callable[[float, float], Point]) -> None:
        for part in pens:
            part(canvas, place)

    return pen


def _star_points() -> list[Point]:
    """Return ten corners, alternately on the outer circle and at 0.42 of its radius."""
    return [
        (math.sin(k * math.pi / 5) * radius, -math.cos(k * math.pi / 5) * radius)
        for k in range(10)
        for radius in [1.0 if k % 2 == 0 else 0.42]
    ]


def _heart_points(*, scale: float = 1.0, flip: bool = False) -> list[Point]:
    """Return the outline of a heart, from the classic curve in sines and cosines; flipped, a spade's body."""
    points = []
    for k in range(96):
        t = 2 * math.pi * k / 96
        x = math.sin(t) ** 3
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 - 0.12
        points.append((x * scale, (-y if flip else y) * scale))
    return points


_STEM = _polygon((-0.1, 0.2), (0.1, 0.2), (0.36, 1.0), (-0.36, 1.0))

SHAPES: dict[str, Pen] = {
    "circle": _disc(0, 0, 0.95),
    "square": _polygon((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": _polygon((0, -0.95), (1.0, 0.85), (-1.0, 0.85)),
    "diamond": _polygon((0, -1.0), (0.72, 0), (0, 1.0), (-0.72, 0)),
    "star": _polygon(*_star_points()),
    "heart": _polygon(*_heart_points()),
    "cross": _polygon(
        *[(-0.32, -0.95), (0.32, -0.95), (0.32, -0.32), (0.95, -0.32), (0.95, 0.32), (0.32, 0.32)],
        *[(0.32, 0.95), (-0.32, 0.95), (-0.32, 0.32), (-0.95, 0.32), (-0.95, -0.32), (-0.32, -0.32)],
    ),
    "ring": _together(_disc(0, 0, 1.0), _disc(0, 0, 0.55, fill=0)),
    "crescent": _together(_disc(0, 0, 1.0), _disc(0.42, -0.12, 0.78, fill=0)),
    "spade": _together(_polygon(*[(x, y - 0.12) for x, y in _heart_points(scale=0.92, flip=True)]), _STEM),
    "club": _together(_disc(0, -0.52, 0.45), _disc(-0.52, 0.2, 0.45), _disc(0.52, 0.2, 0.45), _STEM),
    "arrow": _polygon(
        (1.0, 0), (0.1, -0.85), (0.1, -0.34), (-1.0, -0.34), (-1.0, 0.34), (0.1, 0.34), (0.1, 0.85)
    ),
}
"""Each shape's pen. Coordinates run from -1 to 1 with y down; nothing leaves that square."""
