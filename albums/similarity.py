"""Near duplicates: pictures that look the same although their bytes differ. Needs Pillow only.

A fingerprint has two parts: which of two neighbours in a picture of 9 by 8 pixels is brighter (dHash, 64 bits:
https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html), and the colors of a picture of
4 by 4, because a red heart and a blue one have the same edges.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Self, TypeVar

import PIL.Image

EDGES = (9, 8)
COLORS = (4, 4)
BANDS = 4
"""The bits are cut into so many parts. Of two that differ in fewer bits, one part at least is equal."""

BITS_PER_BAND = 64 // BANDS
MOST_DIFFERENT_BITS = BANDS - 1
FARTHEST = 12 * 3 * COLORS[0] * COLORS[1]
"""The sum over the channels of all 16 pixels: on average 12 of 255."""

CROWD = 32
"""Pictures that share a part. Where there are more, each is compared with as many of its neighbours in the order of all
bits: a hundred thousand plain pictures must not be compared with one another."""

BACKGROUND = (128, 128, 128)

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Fingerprint:
    """How a picture looks, in 56 bytes."""

    edges: int
    colors: bytes

    @classmethod
    def of(cls, picture: PIL.Image.Image) -> Self:
        """Look at a picture; what can be seen through stands on grey."""
        seen = picture.convert("RGBA")
        ground = PIL.Image.new("RGB", seen.size, BACKGROUND)
        ground.paste(seen, mask=seen)
        bright = ground.convert("L").resize(EDGES, PIL.Image.Resampling.BOX).tobytes()
        width, height = EDGES
        bits = 0
        for row in range(height):
            for column in range(width - 1):
                place = row * width + column
                bits = bits << 1 | (bright[place] > bright[place + 1])
        return cls(bits, ground.resize(COLORS, PIL.Image.Resampling.BOX).tobytes())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` has written.

        Raises:
            ValueError: it is something else.
        """
        data = bytes.fromhex(text)
        if len(data) != 8 + 3 * COLORS[0] * COLORS[1]:
            raise ValueError("This is no fingerprint of a picture.")
        return cls(int.from_bytes(data[:8]), data[8:])

    def __str__(self) -> str:
        return (self.edges.to_bytes(8) + self.colors).hex()

    def resembles(self, other: Self) -> bool:
        """Tell whether two pictures look the same."""
        if (self.edges ^ other.edges).bit_count() > MOST_DIFFERENT_BITS:
            return False
        return sum(abs(one - two) for one, two in zip(self.colors, other.colors, strict=True)) <= FARTHEST

    @property
    def parts(self) -> tuple[int, ...]:
        """The four parts of the edges, of 16 bits each. Two pictures that look the same have one of them in common."""
        return tuple(self.edges >> band * BITS_PER_BAND & ((1 << BITS_PER_BAND) - 1) for band in range(BANDS))

    @property
    def tone(self) -> int:
        """The sum of all colors: of two pictures that look the same at most ``FARTHEST`` apart."""
        return sum(self.colors)

    @property
    def sums(self) -> tuple[int, int, int]:
        """The sum over all pixels of each channel."""
        return sum(self.colors[0::3]), sum(self.colors[1::3]), sum(self.colors[2::3])


def near_duplicates(fingerprints: Mapping[K, Fingerprint]) -> list[tuple[K, ...]]:
    """Return the groups of pictures that look the same, each in the order in which they were given.

    Each of a group resembles some other of it. The work grows with the number of pictures, and not with that of
    pairs: only those are compared that have one of four parts of their bits in common.
    """
    looks: dict[Fingerprint, list[K]] = defaultdict(list)
    for key, fingerprint in fingerprints.items():
        looks[fingerprint].append(key)
    different = sorted(looks, key=lambda look: (look.edges, look.colors))
    sums = [look.sums for look in different]
    leaders = list(range(len(different)))
    for one, two in _candidates(different):
        (red, green, blue), (other_red, other_green, other_blue) = sums[one], sums[two]
        if abs(red - other_red) + abs(green - other_green) + abs(blue - other_blue) > FARTHEST:
            continue  # all pixels together are farther apart than they may be one by one
        first, second = _leader(leaders, one), _leader(leaders, two)
        if first != second and different[one].resembles(different[two]):
            leaders[max(first, second)] = min(first, second)
    groups: dict[int, list[K]] = defaultdict(list)
    for place, look in enumerate(different):
        groups[_leader(leaders, place)] += looks[look]
    order = {key: place for place, key in enumerate(fingerprints)}
    found = [tuple(sorted(group, key=order.__getitem__)) for group in groups.values() if len(group) > 1]
    return sorted(found, key=lambda group: order[group[0]])


def _candidates(looks: Sequence[Fingerprint]) -> Iterable[tuple[int, int]]:
    """Yield the pairs of places that are worth comparing, some of them more than once."""
    parts = [look.parts for look in looks]
    for band in range(BANDS):
        crowds: dict[int, list[int]] = defaultdict(list)
        for place, part in enumerate(parts):
            crowds[part[band]].append(place)
        for crowd in crowds.values():
            if len(crowd) <= CROWD:
                yield from combinations(crowd, 2)
            else:
                for start, place in enumerate(crowd):
                    yield from ((place, other) for other in crowd[start + 1 : start + 1 + CROWD])


def _leader(leaders: list[int], place: int) -> int:
    """Return the first of a group, and shorten the way to it."""
    while leaders[place] != place:
        leaders[place] = leaders[leaders[place]]
        place = leaders[place]
    return place
