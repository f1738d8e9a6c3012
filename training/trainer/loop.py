"""A training from its first step, or the checkpoint it goes on from, to its last."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from training.pipelines.failures import FailureCode, RequestFailed, is_out_of_memory
from training.pipelines.hardware import free_cached_memory
from training.recipe import Recipe
from training.trainer import sampling, validation
from training.trainer.alone import check_still_ours
from training.trainer.assignment import Assignment, RunFolder
from training.trainer.batches import Pictures
from training.trainer.checkpoints import Checkpoint, Checkpoints, load_state, load_weights
from training.trainer.examples import Example
from training.trainer.model import Model
from training.trainer.networks import adapter_weights, load_adapter_weights
from training.trainer.processes import Processes
from training.trainer.progress import Progress
from training.trainer.sampling import Sample
from training.trainer.stepping import Stepper
from training.trainer.stopping import Stop, Stopping

Found = TypeVar("Found")

MOST_SKIPPED = 3
"""So many steps in a row may come to nothing."""


@dataclass
class Best:
    """The lowest validation loss so far."""

    loss: float | None = None
    step: int | None = None
    since: int = 0
    """Measurements after it, none of which was lower."""

    def take(self, step: int, loss: float) -> bool:
        """Note a measurement; tell whether it is the lowest."""
        if self.loss is None or loss < self.loss:
            self.loss, self.step, self.since = loss, step, 0
            return True
        self.since += 1
        return False


class Training:
    """The loop, and what it remembers between steps."""

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        model: Model,
        stepper: Stepper,
        pictures: Pictures,
        validated: Sequence[Example],
        *,
        token: str,
        checkpoints: Checkpoints,
        processes: Processes,
        progress: Progress,
        stop: Stop,
    ) -> None:
        """Put a training together. ``validated``: the pictures that are kept apart; ``token``: of the attempt that this is."""
        self.done = 0
        """Optimizer steps that lie behind."""
        self.base_loss: float | None = None
        """The validation loss before the first step."""
        self.best = Best()
        self.best_checkpoint = Best()
        """The same among those at which a checkpoint was saved."""
        self.validation_loss: float | None = None
        """The latest."""
        self._measured_at = -1
        self._saved_at = -1
        self._skipped = 0
        self._has_stepped = False
        self._epoch = 0
        self._started_at = time.time()
        self._folder, self._token = folder, token
        self._recipe, self._model, self._stepper = recipe, model, stepper
        self._pictures, self._validated = pictures, validated
        self._checkpoints, self._processes = checkpoints, processes
        self._progress, self._stop = progress, stop

    @property
    def is_over(self) -> bool:
        """All steps are done, or patience has run out."""
        patience = self._recipe.patience
        return self.done >= self._recipe.steps or (patience is not None and self.best.since >= patience)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint: with the same weights, averages and memory that led there."""
        load_adapter_weights(self._stepper.parts, load_weights(checkpoint))
        said = checkpoint.progress
        self._stepper.load_state(load_state(checkpoint))
        self.done = self._saved_at = checkpoint.step
        self._progress.loss_ema = said["loss_ema"]
        self.base_loss, self.validation_loss = said["base_loss"], said["validation_loss"]
        self._measured_at, self._skipped = said["measured_at"], said["skipped"]
        self._epoch, self._started_at = said["epoch"], said["started_at"]
        self.best, self.best_checkpoint = Best(**said["best"]), Best(**said["best_checkpoint"])

    def run(self) -> None:
        """Train until it is over; the last state is saved then.

        Raises:
            Stopping: the end was asked for; what was asked to be saved is.
            RequestFailed: it does not fit into memory (``out_of_memory``), its numbers are not finite
                (``not_a_number``), or a file cannot be written (``disk_full``, ``storage_error``).
        """
        if self.done == 0:
            self._validate()
        with self._progress.phase("train", self._recipe.steps, done=self.done):
            while not self.is_over:
                if self._processes.agree(said=self._stop.is_requested):
                    self._stop.request()
                    break
                self._take_step()
                self._look_around()
        self._progress.flush()
        if self._stop.is_requested and not self.is_over:
            if self._processes.agree(said=self._stop.save) and self.done:
                self._save()
            self._stop.check()
        self._save()

    @property
    def is_saved(self) -> bool:
        """Whether there is a checkpoint of the last step."""
        return self._saved_at == self.done

    def _take_step(self) -> None:
        try:
            measured = self._fitting(lambda: self._stepper.step(self.done))
        except Exception as error:
            if not is_out_of_memory(error) or not self._has_stepped or self._processes.count > 1:
                raise
            measured = None
        if measured is None:  # outside the except block, whose traceback kept alive what did not fit
            self._stepper.skip()
            free_cached_memory(self._model.hardware)
            self._skip(FailureCode.OUT_OF_MEMORY, "the device ran out of memory")
        elif not measured.is_sound:
            self._skip(FailureCode.NOT_A_NUMBER, "the loss or its gradients were not finite")
        else:
            self._skipped = 0
        self._has_stepped = True
        self.done += 1
        if measured is not None and measured.is_taken:
            self._epoch = measured.epoch
            self._progress.step(
                self.done,
                epoch=measured.epoch,
                loss=measured.loss,
                learning_rate=measured.learning_rate,
                grad_norm=measured.grad_norm,
                seconds=measured.seconds,
            )

    def _fitting(self, work: Callable[[], Found]) -> Found:
        """Do something; before the first step has succeeded, go down the ladder until it fits into memory."""
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error) or self._has_stepped or self._processes.count > 1:
                    raise
                failure = type(error).__name__
            # Only here, where the error's traceback no longer keeps its tensors alive.
            self._go_down(failure)

    def _go_down(self, failure: str) -> None:
        self._stepper.forget()
        free_cached_memory(self._model.hardware)
        before = self._stepper.plan
        rung, plan = next(before.rungs(self._model.hardware.device), (None, before))
        if rung is None:
            raise RequestFailed(
                FailureCode.OUT_OF_MEMORY,
                "The training does not fit into memory, whatever was tried; "
                "a smaller resolution or another base model may.",
            )
        self._stepper.use(plan)
        self._progress.emit(
            "changed",
            code=rung,
            detail=f"What comes first did not fit into memory ({failure}).",
            before=before.describe(rung),
            after=plan.describe(rung),
        )

    def _skip(self, code: FailureCode, reason: str) -> None:
        """Leave a step out, unless too many came to nothing."""
        self._skipped += 1
        if self._skipped > MOST_SKIPPED:
            raise RequestFailed(code, f"{self._skipped} steps in a row came to nothing: {reason}.")
        self._progress.warn("batch_skipped", f"Step {self.done + 1} was left out: {reason}.")

    def _look_around(self) -> None:
        """Do what is due after a step: measure, save, draw. What was learned is safe before pictures take their time."""
        recipe, done = self._recipe, self.done
        is_last = done == recipe.steps
        is_saving = is_last or _is_due(recipe.checkpoint_every, done)
        if recipe.validation_every and (is_saving or _is_due(recipe.validation_every, done)):
            self._validate()
        if is_saving or self.is_over:
            self._save()
        asked = self._processes.agree(said=self._stop.take_samples_request())
        if recipe.sample_prompts and (
            asked or (recipe.sample_every and (self.is_over or _is_due(recipe.sample_every, done)))
        ):
            self._draw()

    def _validate(self) -> None:
        """Measure the loss of the pictures that are kept apart. Half a measurement, when the end was asked for, is none."""
        if not self._validated or not self._recipe.validation_every:
            return

        def report(done: int, total: int) -> None:
            if self._processes.count == 1:  # else the others would wait for the share of this one
                self._stop.check()
            self._progress.done(done, total)

        try:
            with self._progress.phase("validation", len(self._validated)):
                loss = self._fitting(
                    lambda: validation.measure(
                        self._validated,
                        self._pictures,
                        self._stepper,
                        processes=self._processes,
                        report=report,
                    )
                )
        except Stopping:
            return  # the loop sees it, too
        if not math.isfinite(loss):
            raise RequestFailed(
                FailureCode.NOT_A_NUMBER, "What the model says of the pictures is not finite."
            )
        if self.done == 0:
            self.base_loss = loss
        self.validation_loss, self._measured_at = loss, self.done
        self._progress.validation(self.done, loss, is_best=self.best.take(self.done, loss))

    def _draw(self) -> None:
        """Draw the sample pictures; the other processes go on, and wait at the next step."""
        if not self._processes.is_main:
            return
        recipe = self._recipe

        def tell(sample: Sample) -> None:
            self._progress.emit(
                "sample",
                step=self.done,
                index=sample.index,
                prompt=sample.prompt,
                seed=recipe.sample_seed,
                file=str(sample.file.relative_to(self._folder.root)),
                width=recipe.sample_width,
                height=recipe.sample_height,
            )

        with self._progress.phase("sample", len(recipe.sample_prompts)):
            try:
                sampling.draw(
                    self._model,
                    recipe,
                    self._stepper.plan,
                    self._folder,
                    step=self.done,
                    stop=self._stop,
                    tell=tell,
                    report=lambda done: self._progress.done(round(done, 2), len(recipe.sample_prompts)),
                )
            except Stopping:
                pass  # the loop sees it, too
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._progress.warn(
                    "samples_skipped", "The sample pictures do not fit into memory beside the training."
                )

    def _save(self) -> None:
        """Save a checkpoint, unless there is one of this step, and let go of those that nobody needs."""
        if self.is_saved:
            return
        self._progress.flush()  # so that nothing is known of a checkpoint whose steps are not
        measured = self.validation_loss if self._measured_at == self.done else None
        is_best = measured is not None and self.best_checkpoint.take(self.done, measured)
        if self._processes.is_main:
            with self._progress.phase("save"):
                self._write_checkpoint(measured, is_best=is_best)
        self._processes.wait()
        self._saved_at = self.done

    def _write_checkpoint(self, measured: float | None, *, is_best: bool) -> None:
        check_still_ours(self._folder, self._token)
        saved = self._checkpoints.save(
            self.done,
            weights=adapter_weights(self._stepper.parts),
            state=self._stepper.state(),
            progress={
                "plan": self._stepper.plan.to_json(),
                "device": self._model.hardware.device.type,
                "prediction_type": self._model.schedule.config.prediction_type,
                "epoch": self._epoch,
                "started_at": self._started_at,
                "loss_ema": self._progress.loss_ema,
                "base_loss": self.base_loss,
                "validation_loss": self.validation_loss,
                "measured_at": self._measured_at,
                "skipped": self._skipped,
                "best": asdict(self.best),
                "best_checkpoint": asdict(self.best_checkpoint),
            },
            validation_loss=measured,
        )
        # Read anew, for somebody may have pinned one meanwhile.
        pinned = Assignment.read(self._folder).pinned
        removed = self._checkpoints.prune(keep=self._recipe.keep_checkpoints, pinned=pinned)
        self._progress.emit(
            "checkpoint",
            step=saved.step,
            folder=str(saved.folder.relative_to(self._folder.root)),
            sha256=saved.sha256,
            size_bytes=saved.size_bytes,
            validation_loss=measured,
            is_best=is_best,
            removed=removed,
        )


def _is_due(every: int, done: int) -> bool:
    return every > 0 and done % every == 0
