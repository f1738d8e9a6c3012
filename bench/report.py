"""Figures, and the one table they end in."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "MISS", "-"]


@dataclass(frozen=True)
class Figure:
    """One line of the table. ``ratio`` is the margin: above 1 is better than the goal, whichever way the goal points."""

    bench: str
    what: str
    measured: str
    goal: str = "-"
    ratio: float | None = None
    verdict: Verdict = "-"


def info(bench: str, what: str, measured: str) -> Figure:
    """Return a figure that no goal is set for."""
    return Figure(bench, what, measured)


def at_least(bench: str, what: str, value: float, goal: float, *, unit: str = "") -> Figure:
    """Return a figure that should reach its goal."""
    return _judged(bench, what, value, f">= {goal:g}{unit}", value / goal, unit)


def at_most(bench: str, what: str, value: float, goal: float, *, unit: str = "") -> Figure:
    """Return a figure that should not exceed its goal."""
    return _judged(bench, what, value, f"<= {goal:g}{unit}", goal / value if value else 99.0, unit)


def _judged(bench: str, what: str, value: float, goal: str, ratio: float, unit: str) -> Figure:
    return Figure(bench, what, f"{value:.3g}{unit}", goal, ratio, "pass" if ratio >= 1 else "MISS")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the values that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """Return the median and the range of some rounds."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def print_table(figures: Sequence[Figure]) -> None:
    """Print the figures, aligned."""
    head = ("bench", "what", "goal", "measured", "margin", "verdict")
    rows = [
        (f.bench, f.what, f.goal, f.measured, "-" if f.ratio is None else f"{f.ratio:.2f}", f.verdict)
        for f in figures
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, tuple("-" * width for width in widths), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
