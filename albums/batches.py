"""Taking a long list piece by piece."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")

BATCH = 500
"""So many ids are named in one statement."""


def in_batches(items: Iterable[Item], size: int = BATCH) -> Iterator[list[Item]]:
    """Yield items in lists of a size; the last one may be shorter."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
