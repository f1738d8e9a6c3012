"""What a trainer tells of itself, on its way into rows: collected while it comes, written once a second."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from django.db import transaction
from django.db.models import F, Min, Model
from django.db.models.functions import Now

from imagehub.config_schema import PhaseSeconds
from imagehub.jobs.lease import Lease
from training.models import Checkpoint, MetricPoint, Sample, TrainingRun
from training.services.catching_up import catch_up
from training.services.event_fields import (
    Event,
    Malformed,
    is_number,
    is_whole,
    mapping,
    number,
    plain,
    sentence,
    storable,
    text,
    whole,
)
from training.services.run_folders import file_in, folder_of

logger = logging.getLogger(__name__)

MOST_REMARKS = 50
"""Warnings and changes of one run that are kept."""
MEASURED_STEPS = 50
"""So many of the latest steps tell how long one takes."""
SLOW_FACTOR = 5
"""A step may take so many times as long as the median, before the training counts as hung."""

SAID_OF_PHASES = {
    "load": "Loading the model",
    "cache_latents": "Encoding the pictures",
    "cache_text": "Encoding the captions",
    "train": "Training",
    "validation": "Measuring",
    "sample": "Drawing samples",
    "save": "Saving",
    "export": "Writing the adapter",
}
LIMITS = {"cache_latents": "cache", "cache_text": "cache"}
"""Phases whose time limit goes by another name."""


@dataclass
class Batch:
    """What came since the last write."""

    points: dict[tuple[str, int], MetricPoint] = field(default_factory=dict)
    samples: dict[tuple[int, int], Sample] = field(default_factory=dict)
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    changes: dict[str, Any] = field(default_factory=dict)
    rewinds_to: int | None = None
    """What lies behind this step is done again; -1: all of it."""


class Recorder:
    """Turns the events of one attempt of a run into rows, all under the fence of its lease."""

    def __init__(self, run: TrainingRun, lease: Lease) -> None:
        """Let the beats of the lease write what has come in."""
        self.run = run
        self.phase = ""
        self.finished: Event | None = None
        self.failure: tuple[str, str] | None = None
        """The code and the sentence of the program's own, when it fails."""
        self.skipped = 0
        self._lease = lease
        self._folder = folder_of(run)
        self._batch = Batch()
        self._facts: dict[str, Any] = dict(run.facts)
        self._place: tuple[Any, ...] = ()
        self._progressed_at = time.monotonic()
        self._durations: deque[float] = deque(maxlen=MEASURED_STEPS)
        lease.renewal = self.flush

    # ---- Taking ----

    def take(self, event: Event) -> None:
        """Note one event. What is not as it should be is counted, and no reason to end a training."""
        name = event.get("event")
        take = getattr(self, f"_take_{name}", None) if isinstance(name, str) else None
        if take is None:
            return
        try:
            take(event)
        except Malformed as error:
            if not self.skipped:
                logger.warning("An event “%s” of a training says nothing that can be used: %s", name, error)
            self.skipped += 1

    def stuck_for(self) -> float:
        """Return for how many seconds nothing has moved, however alive the program is."""
        return time.monotonic() - self._progressed_at

    def patience(self, limits: PhaseSeconds) -> float:
        """Return how many seconds the phase at hand may take without moving."""
        name = LIMITS.get(self.phase, self.phase)
        seconds = float(dict(limits).get(name, limits.load))
        if self.phase == "train" and self._durations:
            return max(seconds, SLOW_FACTOR * median(self._durations))
        return seconds

    def note(self, **facts: Any) -> None:
        """Add to what is known of the run."""
        self._facts |= facts
        self._batch.changes["facts"] = self._facts

    def _moved(self, *place: Any) -> None:
        if place != self._place:
            self._place = place
            self._progressed_at = time.monotonic()

    def _report(self, step: int, total: int, message: str, *, eta_seconds: float | None = None) -> None:
        self._lease.report(step=step, total_steps=total, message=message, eta_seconds=eta_seconds)
        self.run.step, self.run.total_steps = step, total

    def _take_started(self, event: Event) -> None:
        self._moved("started")
        resumed_from = event.get("resumed_from")
        self._batch.rewinds_to = -1 if resumed_from is None else whole(event, "resumed_from")
        if resumed_from is not None:
            self._batch.changes["resumes"] = F("resumes") + 1
        self._facts.pop("stopped", None)
        self._report(max(0, self._batch.rewinds_to), self.run.total_steps, "Starting")
        self.note(
            device=text(event, "device"),
            dtype=text(event, "dtype"),
            versions={
                storable(name, 50): storable(version, 50)
                for name, version in list(mapping(event, "versions").items())[:20]
            },
            trainable_parameters=number(event, "trainable_parameters", default=None),
        )

    def _take_phase(self, event: Event) -> None:
        phase = text(event, "phase")[:20]
        done, total = number(event, "done", default=0), number(event, "total", default=0)
        self._moved(phase, done, total)
        if phase != self.phase:
            self.phase = phase
            self._batch.changes["phase"] = phase
        said = SAID_OF_PHASES.get(phase, phase)
        if total and phase != "train":
            said = f"{said} ({done:g} of {total:g})"
        self._report(self.run.step, self.run.total_steps, said)

    def _take_step(self, event: Event) -> None:
        step, total = whole(event, "step"), whole(event, "total")
        self._moved("step", step)
        self.phase = "train"
        self._batch.changes["phase"] = "train"
        points = event.get("points")
        if not isinstance(points, list):
            points = [
                [step, *(event.get(name) for name in ("loss", "learning_rate", "grad_norm", "seconds"))]
            ]
        for point in points:
            self._take_point(point)
        loss = number(event, "loss_ema", default=number(event, "loss", default=None))
        if loss is not None:
            self._batch.changes["training_loss"] = loss
        if peak := number(event, "peak_memory_bytes", default=None):
            self.note(peak_memory_bytes=max(peak, self._facts.get("peak_memory_bytes") or 0))
        if self._durations:
            self.note(seconds_per_step=round(median(self._durations), 4))
        self._report(step, total, "Training", eta_seconds=number(event, "eta_seconds", default=None))

    def _take_point(self, point: Any) -> None:
        if not isinstance(point, Sequence) or len(point) != 5:
            raise Malformed("points")
        values = dict(zip(("step", "loss", "learning_rate", "grad_norm", "seconds"), point, strict=True))
        step = whole(values, "step")
        others = {
            name: number(values, name, default=None) for name in ("learning_rate", "grad_norm", "seconds")
        }
        if others["seconds"]:
            self._durations.append(others["seconds"])
        self._add_point(MetricPoint.Kind.TRAIN, step, number(values, "loss"), **others)

    def _take_validation(self, event: Event) -> None:
        step, loss = whole(event, "step"), number(event, "loss")
        self._moved("validation", step)
        self._add_point(MetricPoint.Kind.VALIDATION, step, loss)
        if step == 0:
            self._batch.changes["base_loss"] = loss
        elif event.get("is_best") is True:
            self._batch.changes["validation_loss"] = loss

    def _take_sample(self, event: Event) -> None:
        step, index = whole(event, "step"), whole(event, "index")
        self._moved("sample", step, index)
        name = text(event, "file")
        if file_in(self._folder, name) is None or len(name) > 100:
            raise Malformed("file")
        self._batch.samples[step, index] = Sample(
            run=self.run,
            step=step,
            index=index,
            prompt=text(event, "prompt"),
            seed=whole(event, "seed"),
            file_name=name,
            width=whole(event, "width"),
            height=whole(event, "height"),
        )

    def _take_checkpoint(self, event: Event) -> None:
        step = whole(event, "step")
        self._moved("checkpoint", step)
        self._batch.checkpoints[step] = Checkpoint(
            run=self.run,
            step=step,
            sha256=text(event, "sha256")[:64],
            size_bytes=whole(event, "size_bytes", below=2**63),
            validation_loss=number(event, "validation_loss", default=None),
        )
        removed = event.get("removed")
        self._batch.removed |= set(filter(is_whole, removed)) if isinstance(removed, list) else set()
        self._batch.removed.discard(step)

    def _take_warning(self, event: Event) -> None:
        self._remark("warnings", {"code": text(event, "code")[:50], "detail": sentence(event)})

    def _take_changed(self, event: Event) -> None:
        self._moved("changed", text(event, "code"))
        before_and_after = {name: plain(event.get(name)) for name in ("before", "after")}
        self._remark(
            "changes", {"code": text(event, "code")[:50], "detail": sentence(event)} | before_and_after
        )

    def _take_stopped(self, event: Event) -> None:
        self.note(stopped={"step": whole(event, "step"), "saved": event.get("saved") is True})

    def _take_error(self, event: Event) -> None:
        self.failure = (text(event, "code")[:50], sentence(event))

    def _take_finished(self, event: Event) -> None:
        self._moved("finished")
        self.finished = event
        names = ("best_step", "encoded_images", "encoded_captions", "peak_memory_bytes")
        self.note(
            seconds={
                storable(name, 30): value
                for name, value in list(mapping(event, "seconds").items())[:20]
                if is_number(value)
            },
            **{name: value for name in names if (value := number(event, name, default=None)) is not None},
        )
        loss = number(event, "training_loss", default=None)
        if loss is not None:
            self._batch.changes["training_loss"] = loss

    def _remark(self, name: str, remark: dict[str, Any]) -> None:
        self.note(**{name: [*self._facts.get(name, []), remark][-MOST_REMARKS:]})

    def _add_point(self, kind: MetricPoint.Kind, step: int, loss: float | None, **values: Any) -> None:
        if loss is None:
            raise Malformed("loss")
        self._batch.points[kind, step] = MetricPoint(run=self.run, kind=kind, step=step, loss=loss, **values)

    # ---- Writing ----

    def flush(self) -> None:
        """Renew the lease, and write what has come in with it. What cannot be written now is kept for the next time.

        Raises:
            LeaseLost: the run is no longer ours; nothing is written.
        """
        batch = self._batch
        with transaction.atomic():
            self._lease.renew()
            self._write(batch)
        if self._batch is batch:
            self._batch = Batch()

    def _write(self, batch: Batch) -> None:
        run = self.run
        if batch.rewinds_to is not None:
            self._rewind(batch.rewinds_to)
        _upsert(
            MetricPoint,
            batch.points.values(),
            ["run", "kind", "step"],
            update=["loss", "learning_rate", "grad_norm", "seconds"],
        )
        _upsert(
            Sample,
            batch.samples.values(),
            ["run", "step", "index"],
            update=["prompt", "seed", "file_name", "width", "height"],
        )
        _upsert(
            Checkpoint,
            batch.checkpoints.values(),
            ["run", "step"],
            update=["sha256", "size_bytes", "validation_loss", "created_at", "removed_at"],
        )
        if batch.removed:
            Checkpoint.objects.filter(run=run, step__in=batch.removed, removed_at=None).update(
                removed_at=Now()
            )
        if batch.checkpoints or batch.removed or batch.rewinds_to is not None:
            self._choose_best()
        if batch.changes:
            TrainingRun.objects.filter(pk=run.pk).update(**batch.changes)

    def _choose_best(self) -> None:
        """Note which of the checkpoints that are there has the lowest validation loss, as the trainer does when it deletes."""
        rows = Checkpoint.objects.filter(run=self.run)
        measured = rows.filter(removed_at=None, validation_loss__isnull=False)
        best = measured.order_by("validation_loss", "step").values_list("pk", flat=True).first()
        rows.filter(is_best=True).exclude(pk=best).update(is_best=False)
        rows.filter(pk=best, is_best=False).update(is_best=True)

    def _rewind(self, step: int) -> None:
        """Forget what lies behind the step that this attempt goes on from: it is done again."""
        run = self.run
        MetricPoint.objects.filter(run=run, step__gt=step).delete()
        Sample.objects.filter(run=run, step__gt=step).delete()
        Checkpoint.objects.filter(run=run, step__gt=step, removed_at=None).update(
            removed_at=Now(), is_pinned=False
        )
        catch_up(run, step)
        best = MetricPoint.objects.filter(run=run, kind=MetricPoint.Kind.VALIDATION, step__gt=0).aggregate(
            loss=Min("loss")
        )
        TrainingRun.objects.filter(pk=run.pk).update(validation_loss=best["loss"])


def _upsert(model: type[Model], rows: Any, unique: list[str], *, update: list[str]) -> None:
    """Insert rows. Of those that are there already, only what a trainer tells is replaced: the rest is what people want."""
    rows = list(rows)
    if not rows:
        return
    model._default_manager.bulk_create(
        rows, update_conflicts=True, unique_fields=unique, update_fields=update
    )
