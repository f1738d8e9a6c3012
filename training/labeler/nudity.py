"""A judgement by the nudenet package, whose network comes with it as an ONNX file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image

from training.labeler.findings import NUDENET, Finding, NothingFound
from training.pipelines.failures import FailureCode, RequestFailed

UNFIT = frozenset(
    {
        "ANUS_EXPOSED",
        "BUTTOCKS_EXPOSED",
        "FEMALE_BREAST_EXPOSED",
        "FEMALE_GENITALIA_EXPOSED",
        "MALE_GENITALIA_EXPOSED",
    }
)
"""Of the things that its detector finds."""


class NudityDetector:
    """How sure the detector is of the surest thing that not everybody should see."""

    def __init__(self) -> None:
        try:
            from nudenet import NudeDetector  # optional: requirements-labeling.txt
        except ImportError as error:
            raise RequestFailed(
                FailureCode.MODEL_MISSING, "The package nudenet is not on the machine that labels."
            ) from error
        self.name = NUDENET
        self._detector: Any = NudeDetector()

    def label(self, pictures: Sequence[PIL.Image.Image]) -> list[Finding | NothingFound]:
        """Give each picture its score."""
        with tempfile.TemporaryDirectory(prefix="imagehub-labeler-") as folder:
            return [self._label(picture, Path(folder) / "picture.png") for picture in pictures]

    def _label(self, picture: PIL.Image.Image, path: Path) -> Finding | NothingFound:
        picture.save(path)  # it reads files: ours is upright and in RGB, whatever the original was
        try:
            found = self._detector.detect(str(path))
            return Finding(
                unfit=max((float(one["score"]) for one in found if one["class"] in UNFIT), default=0.0)
            )
        except NothingFound as error:
            return error
