"""The starter cards: a small themed set that the starter model can draw."""

from dataclasses import dataclass

from training.starter.captions import plain_caption
from training.starter.drawings import Combination


@dataclass(frozen=True)
class Card:
    """One picture of the set: its name, prompt and seed."""

    name: str
    prompt: str
    seed: int


NAME = "Starter cards"

CARDS = tuple(
    Card(name, plain_caption(Combination(shape=shape, color=color, background=background)), seed)
    for seed, (name, color, shape, background) in enumerate(
        [
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
        ],
        start=1,
    )
)
