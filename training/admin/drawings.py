"""Curves as SVG, without style or script in the page: what they look like stands in ``training/admin.css``."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from imagehub.drawings import as_attribute, extent, placed

WIDTH, HEIGHT = 120, 28
CHART_WIDTH, CHART_HEIGHT, MARGIN = 720, 240, 34
SIGNIFICANT = 4


def sparkline(values: Sequence[float]) -> SafeString | str:
    """Return the course of a loss, small enough for a cell of a list; nothing where there is no course yet."""
    if len(values) < 2:
        return ""
    place = placed(list(enumerate(values)), (0.0, float(len(values) - 1)), extent(values), WIDTH, HEIGHT, 2)
    return format_html(
        '<svg class="sparkline" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">'
        '<polyline points="{}"/></svg>',
        WIDTH, HEIGHT, WIDTH, HEIGHT, f"Loss from {short(values[0])} to {short(values[-1])}", as_attribute(place),
    )  # fmt: skip


def chart(
    train: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]], *, total: int
) -> SafeString | str:
    """Return the losses of a run by step: of the batches as a line with its spread, of the pictures kept apart as dots.

    Args:
        train: points of a curve, as ``metrics.curve`` gives them.
        validation: the same.
        total: how many steps there will be.
    """
    losses = [point[name] for point in train for name in ("loss_min", "loss_max")]
    losses += [point["loss"] for point in validation]
    if not losses:
        return ""
    across, up = (0.0, float(max(total, 1))), extent(losses)

    def place(points: Sequence[Mapping[str, Any]], name: str = "loss") -> list[tuple[float, float]]:
        pairs = [(point["step"], point[name]) for point in points]
        return placed(pairs, across, up, CHART_WIDTH, CHART_HEIGHT, MARGIN)

    spread = place(train, "loss_max") + place(train, "loss_min")[::-1]
    dots = format_html_join(
        "",
        '<circle cx="{}" cy="{}" r="3"><title>Step {}: {}</title></circle>',
        (
            (f"{x:.1f}", f"{y:.1f}", point["step"], short(point["loss"]))
            for (x, y), point in zip(place(validation), validation, strict=True)
        ),
    )
    labels = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="{}">{}</text>',
        (
            (MARGIN, MARGIN - 10, "start", f"Loss {short(up[1])}"),
            (MARGIN + 4, CHART_HEIGHT - MARGIN - 6, "start", short(up[0])),
            (MARGIN, CHART_HEIGHT - 10, "start", "step 0"),
            (CHART_WIDTH - MARGIN, CHART_HEIGHT - 10, "end", f"step {total}"),
        ),
    )
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="Losses by step">'
        '<rect x="{}" y="{}" width="{}" height="{}"/><polygon points="{}"/><polyline class="train" points="{}"/>'
        '<polyline class="validation" points="{}"/>{}{}</svg>',
        CHART_WIDTH, CHART_HEIGHT, MARGIN, MARGIN, CHART_WIDTH - 2 * MARGIN, CHART_HEIGHT - 2 * MARGIN,
        as_attribute(spread), as_attribute(place(train)), as_attribute(place(validation)), dots, labels,
    )  # fmt: skip


def short(value: float) -> str:
    """Return a number with as many digits as say something."""
    return f"{value:.{SIGNIFICANT}g}"
