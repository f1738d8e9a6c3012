"""A training of a tiny model in this process: what it was told, what it told, what it left."""

import hashlib
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from imagehub.jobs.protocol import Channel
from training.datasets.buckets import bucket_of
from training.datasets.manifest import Entry, Manifest, manifest
from training.pipelines.references import ModelKind, ModelReference
from training.recipe import Recipe
from training.trainer.assignment import Assignment, RunFolder
from training.trainer.checkpoints import Checkpoint, load_weights, verify
from training.trainer.loop import Training
from training.trainer.processes import Processes
from training.trainer.running import Run
from training.trainer.stopping import Stop

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "white")


class Recorder(io.RawIOBase):
    """Stands for the pipe to the guard, and may answer each event."""

    def __init__(self, answer=None) -> None:
        self.events: list[dict[str, Any]] = []
        self._answer = answer

    def write(self, data) -> int:
        event = json.loads(bytes(data))
        self.events.append(event)
        if self._answer:
            self._answer(event)
        return len(data)


@dataclass
class Result:
    """What came of a training."""

    is_finished: bool
    events: list[dict[str, Any]]
    run: Run
    folder: RunFolder

    def of(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]

    @property
    def training(self) -> Training:
        assert self.run.training is not None
        return self.run.training

    @property
    def points(self) -> list[list[float]]:
        return [point for event in self.of("step") for point in event["points"]]

    @property
    def losses(self) -> list[float]:
        return [point[1] for point in self.points]

    @property
    def validation(self) -> list[float]:
        return [event["loss"] for event in self.of("validation")]

    @property
    def finished(self) -> dict[str, Any]:
        (event,) = self.of("finished")
        return event

    def checkpoint(self, step: int) -> Checkpoint:
        return verify(self.folder.checkpoints / f"step-{step:06d}")

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load_weights(self.checkpoint(self.training.done))


@dataclass
class Rig:
    """The folder of a run, and what is written in it."""

    root: Path
    model: Path
    recipe: Recipe
    entries: tuple[Entry, ...]
    architecture: str = "sd1"
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.root)

    def write(self) -> RunFolder:
        """Write what the trainer reads."""
        Assignment(
            run_id="0190-run",
            name="a run",
            model=ModelReference(str(self.model), ModelKind.FOLDER),
            model_name="tiny",
            architecture=self.architecture,
            recipe=self.recipe,
            **{"cache": self.root.parent / "cache", "device": "cpu"} | self.extra,
        ).write(self.folder)
        self.folder.manifest.write_text(self.manifest.to_json())
        return self.folder

    @property
    def manifest(self) -> Manifest:
        return manifest(self.entries)

    def train(self, answer=None, stop: Stop | None = None, inspect=None) -> Result:
        """Train in this process. ``inspect`` is given the run before it begins."""
        folder = self.write()
        recorder = Recorder(answer)
        run = Run(
            folder,
            Assignment.read(folder),
            channel=Channel(recorder, io.BytesIO()),
            processes=Processes("cpu"),
            stop=stop or Stop(),
        )
        if inspect:
            inspect(run)
        return Result(run.carry_out(), recorder.events, run, folder)

    def but(self, root: Path | None = None, **changes: Any) -> "Rig":
        """Return the same training with another recipe, in a folder of its own; the cache is shared."""
        copy = replace(self, root=root or self.root, recipe=self.recipe.model_copy(update=changes))
        if root is not None:
            for picture in self.folder.images.iterdir():
                copy.folder.images.mkdir(parents=True, exist_ok=True)
                (copy.folder.images / picture.name).write_bytes(picture.read_bytes())
        return copy


def small_recipe(**changes: Any) -> Recipe:
    """Return a recipe that a tiny model follows in a second."""
    return Recipe(
        **{
            "seed": 3,
            "steps": 6,
            "resolution": 32,
            "bucket_step": 8,
            "rank": 4,
            "alpha": 2.0,
            "learning_rate": 1e-3,
            "batch_size": 2,
            "validation_every": 3,
            "checkpoint_every": 0,
            "sample_width": 32,
            "sample_height": 32,
            "sample_steps": 2,
        }
        | changes
    )


def make_rig(root: Path, model: Path, recipe: Recipe, *, pictures: int = 6, **options: Any) -> Rig:
    """Draw pictures, a quarter of them kept apart, and return a run of them."""
    folder = RunFolder(root)
    folder.images.mkdir(parents=True)
    entries = []
    for number in range(pictures):
        colour = COLOURS[number % len(COLOURS)]
        size = (48, 32) if number == 1 else (40, 40)
        picture = Image.new("RGB", size, "grey")
        ImageDraw.Draw(picture).ellipse((4 + number, 8, 28, 30), fill=colour)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        (folder.images / sha256).write_bytes(buffer.getvalue())
        bucket = bucket_of(size, resolution=recipe.resolution, step=recipe.bucket_step)
        assert bucket
        role = "validation" if number % 4 == 3 else "train"
        entries.append(Entry(sha256, f"a {colour} ball", role, 1, size, bucket))
    return Rig(root, model, recipe, tuple(entries), **options)
