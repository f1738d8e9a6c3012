"""A program that draws what is trained on: ``python -m bench.training_data FOLDER MODEL STEPS``.

It leaves the folder of a run as the trainer wants it, which the bare loops read, too.
"""

import hashlib
import io
import sys
from pathlib import Path

import numpy as np

from training.datasets.manifest import Entry, manifest
from training.pipelines.references import ModelKind, ModelReference
from training.recipe import Recipe
from training.starter import drawings
from training.starter.captions import plain_caption
from training.trainer.assignment import Assignment, RunFolder

PICTURES = 32
BATCH = 4
RANK = 4
LEARNING_RATE = 1e-4


def write_run(root: Path, model: Path, *, steps: int, name: str) -> RunFolder:
    """Write a run of that many steps; several of one root share pictures and cache."""
    folder = RunFolder(root / name)
    folder.images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    entries = []
    for _ in range(PICTURES):
        drawing = drawings.random_drawing(rng, drawings.training_combinations())
        buffer = io.BytesIO()
        drawings.draw(drawing).save(buffer, "PNG")
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        (folder.images / sha256).write_bytes(buffer.getvalue())
        caption = plain_caption(drawing.combination)
        entries.append(Entry(sha256, caption, "train", 1, (64, 64), (64, 64)))
    folder.manifest.write_text(manifest(entries).to_json())
    recipe = Recipe(
        steps=steps,
        resolution=64,
        bucket_step=8,
        rank=RANK,
        alpha=float(RANK),
        learning_rate=LEARNING_RATE,
        batch_size=BATCH,
        random_flip=False,
        validation_every=0,
        checkpoint_every=0,
    )
    Assignment(
        run_id=name,
        name=name,
        model=ModelReference(str(model), ModelKind.FOLDER),
        model_name="bench",
        architecture="sd1",
        recipe=recipe,
        cache=root / "cache",
        device="cpu",
    ).write(folder)
    return folder


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_run(target.parent, Path(sys.argv[2]), steps=int(sys.argv[3]), name=target.name)
