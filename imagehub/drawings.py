"""Curves as SVG, without style or script in the page: where points lie in a drawing. What it looks like stands in a style sheet."""

from collections.abc import Sequence

Point = tuple[float, float]


def extent(values: Sequence[float]) -> Point:
    """Return the least and the greatest of some values, a little apart where they are the same."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1)


def placed(
    points: Sequence[Point],
    across: Point,
    up: Point,
    width: int,
    height: int,
    margin: int,
) -> list[Point]:
    """Return where points lie in a drawing: x to the right, and y down, as SVG has it."""
    sides = (width - 2 * margin) / (across[1] - across[0]), (height - 2 * margin) / (up[1] - up[0])
    return [
        (margin + (x - across[0]) * sides[0], height - margin - (y - up[0]) * sides[1]) for x, y in points
    ]


def as_attribute(places: Sequence[Point]) -> str:
    """Return places as ``points`` of a polygon or a line has them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
