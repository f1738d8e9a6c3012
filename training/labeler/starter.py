"""A labeler without a neural network, for pictures of one shape on a plain ground such as the starter model draws.

It measures (see :mod:`training.starter.judge`), so it says the same of the same picture everywhere, and says nothing of
what is no such drawing.
"""

from collections.abc import Sequence

import PIL.Image

from training.labeler.findings import STARTER, Finding, NothingFound, Said, Task
from training.starter.captions import plain_caption
from training.starter.drawings import PICTURE_SIZE, Combination
from training.starter.judge import Verdict, judge

VERSION = 1

MOST_UNEVEN = 1.1
"""A drawing is square; one that is longer than that by so much is none."""


class StarterLabeler:
    """Names the shape, its color and the color of the ground."""

    def __init__(self, task: Task) -> None:
        self.name = f"{STARTER} {VERSION}"
        self._task = task

    def label(self, pictures: Sequence[PIL.Image.Image]) -> list[Finding | NothingFound]:
        """Say something of each picture, or that it is no drawing."""
        return [self._label(picture) for picture in pictures]

    def _label(self, picture: PIL.Image.Image) -> Finding | NothingFound:
        if max(picture.size) > MOST_UNEVEN * min(picture.size):
            return NothingFound("It is no drawing of one shape on a plain ground.")
        verdict = judge(picture.resize((PICTURE_SIZE, PICTURE_SIZE), PIL.Image.Resampling.BOX))
        combination = _combination(verdict)
        if combination is None:
            return NothingFound("It is no drawing of one shape on a plain ground.")
        sure = round(verdict.overlap, 3)
        match self._task:
            case "caption":
                return Finding((Said(plain_caption(combination), sure),))
            case "tag":
                words = (combination.shape, combination.color, f"{combination.background} background")
                return Finding(tuple(Said(word, sure) for word in words))
            case _:
                return Finding(unfit=0.0)


def _combination(verdict: Verdict) -> Combination | None:
    if verdict.shape is None or verdict.color is None or verdict.color == verdict.background:
        return None
    return Combination(verdict.shape, verdict.color, verdict.background)
