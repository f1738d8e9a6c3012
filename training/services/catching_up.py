"""What a run had done before it lost its worker, and nobody was left to write down: found in its folder."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.db.models.functions import Now

from training.models import Checkpoint, MetricPoint, TrainingRun
from training.services.run_folders import folder_of
from training.trainer.checkpoint_files import CheckpointDamaged, folder_name, steps_in, verify

BATCH = 500


def catch_up(run: TrainingRun, step: int) -> None:
    """Write the rows of what a run has measured and saved up to a step, where they are missing."""
    folder = folder_of(run)
    points = _points(run, step)
    MetricPoint.objects.bulk_create(points, batch_size=BATCH, ignore_conflicts=True)
    rows = Checkpoint.objects.filter(run=run)
    there = [found for found in steps_in(folder.checkpoints) if found <= step]
    rows.filter(removed_at=None).exclude(step__in=there).update(removed_at=Now(), is_pinned=False)
    known = set(rows.filter(removed_at=None).values_list("step", flat=True))
    for missing in set(there) - known:
        with suppress(CheckpointDamaged):
            found = verify(folder.checkpoints / folder_name(missing))
            rows.update_or_create(
                run=run,
                step=missing,
                defaults={
                    "sha256": found.sha256,
                    "size_bytes": found.size_bytes,
                    "validation_loss": found.validation_loss,
                    "removed_at": None,
                },
            )


def _points(run: TrainingRun, step: int) -> Iterator[MetricPoint]:
    """Yield what the file of metrics holds, but for lines that were half written when the program died."""
    path = folder_of(run).metrics
    if not path.is_file():
        return
    with path.open() as file:
        for line in file:
            with suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                if not 0 <= said["step"] <= step:
                    continue
                if "validation_loss" in said:
                    kind, loss, others = MetricPoint.Kind.VALIDATION, said["validation_loss"], {}
                else:
                    kind, loss = MetricPoint.Kind.TRAIN, said["loss"]
                    others = {
                        name: _finite(said.get(name)) for name in ("learning_rate", "grad_norm", "seconds")
                    }
                if _finite(loss) is not None:
                    yield MetricPoint(run=run, kind=kind, step=said["step"], loss=loss, **others)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
