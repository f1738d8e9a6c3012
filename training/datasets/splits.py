"""Which pictures are kept apart to measure by. It follows from their content, so that none ever changes sides."""

import hashlib
from collections.abc import Collection
from typing import Literal

Role = Literal["train", "validation"]


def split(contents: Collection[str], *, share: float) -> dict[str, Role]:
    """Return for each picture, named by the SHA-256 of its bytes, what it is there for.

    A picture's role depends on nothing but itself and the share: when an album grows, or two of them overlap, none
    goes from one side to the other, and equal pictures are on the same side. So the share is met on average only. A
    set that would be left without anything to learn from learns from the picture that lies farthest from the
    border; in that one case, it may change sides when others come.

    Args:
        contents: the SHA-256 of each picture.
        share: how many of a hundred pictures are kept apart, from 0 (none) to 1.
    """
    places = {content: _place(content) for content in contents}
    roles: dict[str, Role] = {
        content: "validation" if place < share else "train" for content, place in places.items()
    }
    if roles and "train" not in roles.values():
        roles[max(places, key=lambda content: (places[content], content))] = "train"
    return roles


def _place(content: str) -> float:
    """Return a number from 0 to below 1 that says nothing about the picture, and is always the same."""
    # Hashed again: names of files that somebody chose by their hashes are no even spread.
    digest = hashlib.sha256(f"validation:{content}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56
