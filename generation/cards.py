"""The starter cards: a small set that the starter model can draw, as the API takes it."""

from dataclasses import dataclass
from typing import Any

from training.starter.captions import plain_caption
from training.starter.drawings import Combination


@dataclass(frozen=True)
class Card:
    """One picture of the set: its name, and what it shows."""

    name: str
    picture: str


NAME = "Starter cards"
THEME = "bold flat graphic"

CARDS = tuple(
    Card(name, plain_caption(Combination(shape=shape, color=color, background=background)))
    for name, color, shape, background in [
        ("Ace of hearts", "red", "heart", "white"),
        ("Ace of spades", "black", "spade", "white"),
        ("Ace of diamonds", "red", "diamond", "white"),
        ("Ace of clubs", "black", "club", "white"),
        ("The sun", "yellow", "circle", "blue"),
        ("The moon", "white", "crescent", "black"),
        ("The star", "yellow", "star", "purple"),
        ("The tower", "orange", "triangle", "black"),
        ("The ring", "yellow", "ring", "green"),
        ("The cross", "white", "cross", "red"),
        ("The shield", "blue", "square", "orange"),
        ("The joker", "purple", "star", "yellow"),
    ]
)

TEMPLATE: dict[str, Any] = {
    "name": f"{NAME}, the set",
    "description": "What the demonstration makes, with the starter model.",
    "kind": "set",
    "is_set_template": True,
    "set_rows": [{"name": card.name, "picture": card.picture} for card in CARDS],
    "prompt_template": "{picture}",
    "example_theme": THEME,
    "width": 64,
    "height": 64,
}
"""The body of ``POST /api/albums``."""

RUN: dict[str, Any] = {"theme": THEME, "album_name": NAME, "visibility": "public", "seed": 1}
"""The body of ``POST /api/albums/{id}/generate``."""
