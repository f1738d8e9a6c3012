"""What a trainer is told to do, and how its folder is laid out. Needs neither Django nor torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from training.pipelines import fields
from training.pipelines.failures import FailureCode, RequestFailed
from training.pipelines.references import ModelReference
from training.recipe import Recipe

VERSION = 1


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: nothing of it lies elsewhere, but for the cache that runs share."""

    root: Path

    @property
    def assignment(self) -> Path:
        return self.root / "run.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def images(self) -> Path:
        """The pictures, each called by its SHA-256, without a suffix."""
        return self.root / "images"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: what was measured at each step."""
        return self.root / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.root / "run.log"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"


@dataclass(frozen=True)
class Assignment:
    """All that a trainer needs to know."""

    run_id: str
    name: str
    model: ModelReference
    model_name: str
    """What people call the base model: it stands in the header of the adapter."""
    architecture: str
    """``sd1``, ``sdxl`` and so on: which prefixes and names the exported file has."""
    recipe: Recipe
    cache: Path
    """The folder of encoded pictures and captions, which runs share."""
    cache_bytes: int = 0
    """What of the cache no run needs now is deleted, the least recently used first, until it is no larger; 0: never."""
    trigger_word: str = ""
    description: str = ""
    device: str = "auto"
    threads: int = 1
    minimum_free_bytes: int = 0
    """So much stays free on the disk, whatever is to be saved."""
    token: str = ""
    """Of the attempt that this is; whoever finds another one has lost the run to it."""
    pinned: tuple[int, ...] = field(default=())
    """Steps of checkpoints that stay."""

    def write(self, folder: RunFolder) -> None:
        """Write it where a trainer looks for it."""
        content = asdict(self) | {
            "version": VERSION,
            "recipe": self.recipe.model_dump(mode="json"),
            "cache": str(self.cache),
        }
        folder.root.mkdir(parents=True, exist_ok=True)
        partial = folder.assignment.with_suffix(".part")
        partial.write_text(json.dumps(content))
        partial.replace(folder.assignment)

    @classmethod
    def read(cls, folder: RunFolder) -> Self:
        """Read what a folder holds.

        Raises:
            RequestFailed: there is none, or it cannot be carried out (``bad_request``).
        """
        try:
            content = json.loads(folder.assignment.read_text())
        except (OSError, ValueError):
            raise RequestFailed(FailureCode.BAD_REQUEST, "The folder holds no readable run.json.") from None
        if not isinstance(content, Mapping) or content.get("version") != VERSION:
            raise RequestFailed(FailureCode.BAD_REQUEST, "The run.json has a version that is not known.")
        return cls(
            run_id=fields.text(content, "run_id"),
            name=fields.text(content, "name"),
            model=ModelReference.parse(content.get("model")),
            model_name=fields.text(content, "model_name"),
            architecture=fields.text(content, "architecture", default="other"),
            recipe=_recipe(content.get("recipe")),
            cache=fields.absolute_path(content, "cache"),
            cache_bytes=fields.whole(content, "cache_bytes", 0, 2**62),
            trigger_word=fields.text(content, "trigger_word", default=""),
            description=fields.text(content, "description", default=""),
            device=fields.text(content, "device", default="auto"),
            threads=fields.whole(content, "threads", 1, 256),
            minimum_free_bytes=fields.whole(content, "minimum_free_bytes", 0, 2**62),
            token=fields.text(content, "token", default=""),
            pinned=_steps(content.get("pinned", [])),
        )


def _recipe(value: Any) -> Recipe:
    try:
        return Recipe.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("recipe", *first["loc"])))
        raise RequestFailed(FailureCode.BAD_REQUEST, f"“{place}”: {first['msg']}.") from None


def _steps(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(step, int) for step in value):
        raise fields.wrong("pinned", "a list of steps")
    return tuple(value)
