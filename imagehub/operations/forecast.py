"""How fast something grows, and when that fills a disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from math import ceil
from statistics import median

LEAST_POINTS = 5
LEAST_TIME = timedelta(days=1)
"""From less nothing is told: each night a purge runs, and each day has its peak."""

MOST_POINTS = 120
"""The pairs of so many are 7,140, which takes a few milliseconds."""

FARTHEST_DAYS = 3650.0
"""What is farther away than ten years is not foretold."""


@dataclass(frozen=True)
class Forecast:
    """What lies ahead of one file system."""

    growth_bytes_per_day: float | None
    """None where too little is known."""
    days_left: float | None
    """Until no more than the space that has to stay free is left; None where it does not grow, or nobody can tell."""


def growth_per_day(points: Sequence[tuple[datetime, int]]) -> float | None:
    """Return by how much something grows in a day, or None where that cannot be told.

    It is the median of the slopes between all pairs of points (the estimator of Theil and Sen: P. K. Sen, "Estimates of the
    regression coefficient based on Kendall's tau", J. Amer. Statist. Assoc. 63, 1968, 1379-1389). Up to 29 % of the points may be
    anything: a large purge, or a file that was there for an afternoon, does not move it far.

    Args:
        points: what there was when, the oldest first.
    """
    if len(points) < LEAST_POINTS or points[-1][0] - points[0][0] < LEAST_TIME:
        return None
    step = ceil(len(points) / MOST_POINTS)
    chosen = points[(len(points) - 1) % step :: step]
    slopes = [
        (later - earlier) / days
        for (begin, earlier), (end, later) in combinations(chosen, 2)
        if (days := (end - begin) / timedelta(days=1)) > 0
    ]
    return median(slopes) if slopes else None


def days_until(free_bytes: int, growth: float | None) -> float | None:
    """Return for how many days so much is enough; None where nothing grows, or for longer than anybody can foretell."""
    if growth is None or growth <= 0:
        return None
    days = max(0, free_bytes) / growth
    return round(days, 1) if days <= FARTHEST_DAYS else None
