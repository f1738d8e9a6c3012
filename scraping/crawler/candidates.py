"""Of the files that stand for one picture, the best: ``srcset``, ``<picture>``, and attributes of lazy loaders."""

from collections.abc import Iterable
from dataclasses import dataclass

LARGE = (
    "data-full-src",
    "data-fullsrc",
    "data-full",
    "data-large_image",
    "data-large-src",
    "data-zoom-image",
    "data-zoom-src",
    "data-hi-res-src",
    "data-highres",
    "data-orig-file",
)
"""Where galleries put the large file."""

LAZY = (
    "data-src",
    "data-lazy-src",
    "data-original",
    "data-lazy",
    "data-url",
    "data-image",
    "data-img-src",
    "data-actualsrc",
    "data-echo",
    "data-flickity-lazyload",
    "lazy-src",
)
"""Where lazy loaders put the file; ``src`` then holds a placeholder."""

SINGLE = {name: rank for rank, name in enumerate((*LARGE, *LAZY, "src"))}
"""Attributes with one file; the lower the number, the better."""

SRCSETS = ("srcset", "data-srcset", "data-lazy-srcset", "imagesrcset")

UNTAKEN_TYPES = frozenset(
    {"image/avif", "image/heic", "image/heif", "image/jxl", "image/svg+xml", "image/gif", "image/jp2"}
)
"""Kinds that ImageHub does not take: another file of the same picture is better, were it smaller."""

UNTAKEN_ENDINGS = frozenset({"avif", "heic", "heif", "jxl", "svg", "gif", "jp2"})

SPACES = " \t\n\r\f"


@dataclass(frozen=True)
class Candidate:
    """One file of a picture."""

    reference: str
    size: float = 0.0
    """Pixels of width, or how many pixels of the screen stand for one: larger is better, among those of one list."""
    is_taken: bool = True


def parse_srcset(text: str) -> list[tuple[str, float]]:
    """Return the references of a ``srcset`` with the number of their descriptor (``2x``, ``640w``; 1 if there is none).

    Commas may stand within a reference, as the algorithm of HTML has it
    (https://html.spec.whatwg.org/multipage/images.html#parsing-a-srcset-attribute).
    """
    found: list[tuple[str, float]] = []
    place, end = 0, len(text)
    while place < end:
        while place < end and text[place] in SPACES + ",":
            place += 1
        start = place
        while place < end and text[place] not in SPACES:
            place += 1
        reference = text[start:place]
        if not reference:
            break
        if reference.endswith(","):
            found.append((reference.rstrip(","), 1.0))
            continue
        comma = text.find(",", place)
        stop = end if comma < 0 else comma
        found.append((reference, _number(text[place:stop])))
        place = stop
    return found


def best(candidates: Iterable[Candidate]) -> str:
    """Return the reference of the best; the first of equal ones; empty if there is none."""
    return max(
        candidates, key=lambda candidate: (candidate.is_taken, candidate.size), default=Candidate("")
    ).reference


def of_srcset(text: str | None, mime: str | None = None) -> list[Candidate]:
    """Return the candidates of one ``srcset``, of a source with a type or without."""
    is_taken = (mime or "").partition(";")[0].strip().lower() not in UNTAKEN_TYPES
    return [Candidate(reference, size, is_taken) for reference, size in parse_srcset(text or "")]


def _number(descriptors: str) -> float:
    for word in descriptors.split():
        if word[-1] in "wx":
            try:
                value = float(word[:-1])
            except ValueError:
                continue
            return value if 0 < value < 1e6 else 0.0
    return 1.0
