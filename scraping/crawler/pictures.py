"""A file that was downloaded as a picture: is it one, is it wanted, and is it there already?"""

import hashlib
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from albums.decoding.exif import TURNS, orientation_of
from albums.decoding.formats import format_of
from albums.decoding.outline import Outline, read_outline
from albums.decoding.refusals import PictureRefused
from albums.similarity import Fingerprint
from scraping.crawler.assignment import Sizes

LOOK_SIDE = 64
"""JPEGs are decoded no larger than this needs: a fingerprint is made of 9 by 8 pixels."""


class Unwanted(Exception):
    """A file that is not kept. ``reason`` says why to programs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A file that is wanted, by what it is."""

    sha256: str
    format: str
    width: int
    height: int
    size_bytes: int
    fingerprint: Fingerprint

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.sha256}.{self.format}"


@dataclass(frozen=True)
class Judgement:
    """Whether a picture is new to this crawl."""

    duplicate_of: str = ""
    """SHA-256 of the one instead of which this one is not kept."""
    reason: str = ""
    near_duplicate_of: str = ""
    """SHA-256 of a smaller one that looks the same; somebody has to choose between them."""


def examine(body: bytes, sizes: Sizes) -> Picture:
    """Look at a file: its first bytes, its header, and only then its pixels.

    Raises:
        Unwanted: it is no picture of a kind that is taken, damaged, or not of a size that is wanted.
    """
    format = format_of(body[:12])  # noqa: A001 - the word of the domain
    if not format:
        raise Unwanted("not_a_picture" if _looks_like_text(body) else "unsupported_format")
    try:
        outline = read_outline(io.BytesIO(body), format)
    except PictureRefused:
        raise Unwanted("damaged") from None
    _check(outline, sizes)
    return Picture(
        sha256=hashlib.sha256(body).hexdigest(),
        format=format,
        width=outline.width,
        height=outline.height,
        size_bytes=len(body),
        fingerprint=_look(body, format, outline),
    )


def store(body: bytes, picture: Picture, folder: Path) -> Path:
    """Write a file under the name of its content, whole or not at all, and return where."""
    target = folder / picture.name
    partial = target.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(body)
    partial.replace(target)
    return target


class Collection:
    """The pictures of one crawl, and those that were there before it."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = frozenset(known)
        self._kept: dict[str, tuple[Fingerprint, int]] = {}
        self._by_part: defaultdict[tuple[int, int], list[str]] = defaultdict(list)

    def judge(self, picture: Picture) -> Judgement:
        """Tell whether there is such a picture already: the same bytes, or one that looks the same.

        Of those that look the same the larger one is kept; where the smaller one came first, both are.
        """
        if picture.sha256 in self._known:
            return Judgement(picture.sha256, "known")
        if picture.sha256 in self._kept:
            return Judgement(picture.sha256, "same_bytes")
        area = picture.width * picture.height
        for sha256 in self._lookalikes(picture.fingerprint):
            if area <= self._kept[sha256][1]:
                return Judgement(sha256, "near_duplicate")
            return Judgement(near_duplicate_of=sha256)
        return Judgement()

    def keep(self, sha256: str, fingerprint: Fingerprint, area: int) -> None:
        """Remember a picture that was stored. ``area`` is in pixels."""
        self._kept[sha256] = fingerprint, area
        for part in enumerate(fingerprint.parts):
            self._by_part[part].append(sha256)

    def _lookalikes(self, fingerprint: Fingerprint) -> Iterator[str]:
        """Yield those that look the same. Only those are compared that have one part of their bits in common with it."""
        for part in enumerate(fingerprint.parts):
            for sha256 in self._by_part.get(part, ()):
                if fingerprint.resembles(self._kept[sha256][0]):
                    yield sha256

    def remember(self, entry: Mapping[str, Any]) -> None:
        """Remember a picture that an earlier attempt has stored, by what was written down of it."""
        area = entry["width"] * entry["height"]
        self.keep(entry["sha256"], Fingerprint.parse(entry["fingerprint"]), area)


def _check(outline: Outline, sizes: Sizes) -> None:
    shorter, longer = sorted((outline.width, outline.height))
    area = outline.width * outline.height
    if shorter < sizes.min_side or area < sizes.min_area:
        raise Unwanted("too_small")
    if longer > sizes.max_side or area > sizes.max_area:
        raise Unwanted("too_large")
    if longer > shorter * sizes.max_ratio:
        raise Unwanted("bad_aspect_ratio")


def _look(body: bytes, format: str, outline: Outline) -> Fingerprint:  # noqa: A002
    """Decode a picture as coarsely as it can be, and return how it looks."""
    try:
        with warnings.catch_warnings():
            # The header was checked against the limits of this crawl, which are not Pillow's.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(body), formats=[format.upper()]) as picture:
                if picture.size != (outline.width, outline.height):
                    raise Unwanted("damaged")
                picture.draft("RGB", (LOOK_SIDE, LOOK_SIDE))
                picture.load()
                turn = TURNS.get(orientation_of(picture.info.get("exif", b"")))
                # As it is in the library, where pictures stand upright.
                return Fingerprint.of(picture if turn is None else picture.transpose(turn))
    except Unwanted:
        raise
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever a decoder raises, this picture cannot be read
        raise Unwanted("damaged") from None


def _looks_like_text(body: bytes) -> bool:
    head = body[:512].lstrip().lower()
    return not head or head.startswith((b"<", b"{", b"[")) or b"\0" not in head
