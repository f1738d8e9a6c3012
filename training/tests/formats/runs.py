"""Folders of runs that nobody has trained."""

from pathlib import Path

from training.datasets.manifest import Entry, manifest
from training.pipelines.references import ModelKind, ModelReference
from training.recipe import Recipe
from training.trainer.assignment import Assignment, RunFolder
from training.trainer.checkpoints import Checkpoints, Origin

RANK, ALPHA = 4, 2.0


def entries(count=3, caption="a zorp, on grass"):
    return manifest(
        Entry(f"{number:064x}", caption, "train", 2, (64, 64), (64, 64)) for number in range(count)
    )


def make_run(
    root: Path,
    *,
    model: Path | str | ModelReference = "/models/secret/tiny",
    architecture: str = "other",
    **changes,
):
    """Write what a trainer is told, and return the folder."""
    folder = RunFolder(root)
    recipe = Recipe(
        **{"rank": RANK, "alpha": ALPHA, "steps": 100, "train_text_encoder": True} | changes.pop("recipe", {})
    )
    values = {
        "run_id": "0198c0de-0000-7000-8000-000000000001",
        "name": "Zorps / of Ümläut",
        "model": model if isinstance(model, ModelReference) else ModelReference(str(model), ModelKind.FOLDER),
        "model_name": "acme/tiny",
        "architecture": architecture,
        "recipe": recipe,
        "cache": root / "cache",
        "trigger_word": "zorp",
        "description": "What zorps look like.",
    } | changes
    Assignment(**values).write(folder)
    folder.manifest.write_text(entries().to_json())
    return folder


def checkpoints_of(folder: RunFolder) -> Checkpoints:
    return Checkpoints(folder, Origin(Assignment.read(folder).recipe, entries().digest()))
