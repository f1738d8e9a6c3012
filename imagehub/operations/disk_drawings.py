"""The course of disks as SVG: what they look like stands in ``imagehub/disks.css``."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from imagehub.drawings import as_attribute, extent, placed

WIDTH, HEIGHT, MARGIN = 720, 220, 30
COLORS = 8
"""So many kinds have a color of their own in the style sheet."""


def stacked(
    times: Sequence[datetime],
    layers: Mapping[str, Sequence[float]],
    *,
    label: str,
    top: float | None = None,
    mark: float | None = None,
) -> SafeString | str:
    """Return how much there was of several things at some times, one above the other; nothing before there are two times.

    Args:
        times: when, the earliest first.
        layers: by name, how many bytes at each of these times; the first is the lowest.
        label: what it shows, for those who do not see it.
        top: what the drawing reaches up to, if not to the most there was.
        mark: where a line is drawn across.
    """
    if len(times) < 2:
        return ""
    sums = list(
        accumulate(layers.values(), lambda below, layer: [a + b for a, b in zip(below, layer, strict=True)])
    )
    most = top or max(max(layer) for layer in sums) or 1
    stamps = [time.timestamp() for time in times]

    def place(values: Sequence[float]) -> list[tuple[float, float]]:
        pairs = list(zip(stamps, values, strict=True))
        return placed(pairs, extent(stamps), (0, most), WIDTH, HEIGHT, MARGIN)

    floors = [[0.0] * len(times), *sums]
    areas = format_html_join(
        "",
        '<polygon class="color-{}" points="{}"><title>{}</title></polygon>',
        (
            (number % COLORS, as_attribute(place(upper) + place(lower)[::-1]), name)
            for number, (name, lower, upper) in enumerate(zip(layers, floors, sums, strict=False))
        ),
    )
    line = format_html('<polyline points="{}"/>', as_attribute(place([mark] * len(times)))) if mark else ""
    labels = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="{}">{}</text>',
        (
            (MARGIN, MARGIN - 8, "start", filesizeformat(most)),
            (MARGIN, HEIGHT - 10, "start", f"{times[0]:%Y-%m-%d %H:%M}"),
            (WIDTH - MARGIN, HEIGHT - 10, "end", f"{times[-1]:%Y-%m-%d %H:%M}"),
        ),
    )
    return format_html(
        '<svg class="disks" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<rect x="{}" y="{}" width="{}" height="{}"/>{}{}{}</svg>',
        WIDTH, HEIGHT, label, MARGIN, MARGIN, WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN, areas, line, labels,
    )  # fmt: skip
