"""One optimizer step: batches forward and backward, gradients clipped, weights moved."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from training.recipe import Recipe
from training.trainer.batches import Batch, Pictures
from training.trainer.chance import Purpose, torch_seed
from training.trainer.examples import Example
from training.trainer.losses import errors, min_snr_weights
from training.trainer.memory import Plan
from training.trainer.model import Model
from training.trainer.networks import trainable, trained
from training.trainer.optimizers import make_optimizer, make_schedule
from training.trainer.ordering import Order
from training.trainer.processes import Processes

SMALLEST_SCALE = 1.0
"""Below it, half precision cannot hold the gradients however they are scaled."""


@dataclass(frozen=True)
class Measured:
    """What one step was like."""

    loss: float
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    epoch: int
    seconds: float
    is_taken: bool
    """False: the numbers were not finite, and the weights are as before."""
    is_sound: bool
    """False: they should have been finite. In half precision, gradients may run over while their scale is sought."""


class Stepper:
    """Takes the steps of one training, whatever number comes: nothing but weights and averages is remembered."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        plan: Plan,
        pictures: Pictures,
        examples: Sequence[Example],
        processes: Processes,
    ) -> None:
        """Prepare to train the adapter in the model.

        Raises:
            RequestFailed: the optimizer is not installed, or its rates make no sense (``bad_request``).
        """
        self.parts = trained(model.parts, recipe)
        self.weights = trainable(self.parts.values())
        self._model, self._recipe, self._pictures, self._processes = model, recipe, pictures, processes
        self._examples = examples
        self._order = Order(
            [example.bucket for example in examples],
            [example.repeats for example in examples],
            seed=recipe.seed,
            batch_size=recipe.batch_size,
        )
        self._optimizer = make_optimizer(self.parts, recipe)
        self._schedule = make_schedule(self._optimizer, recipe)
        self.use(plan)

    def use(self, plan: Plan) -> None:
        """Compute as a plan says from now on."""
        self.plan = plan
        for part in self.parts.values():
            part.train()
            _set_checkpointing(part, is_on=plan.gradient_checkpointing)
        if self._model.dtype != plan.dtype:
            for tensor in (*self._model.unet.parameters(), *self._model.unet.buffers()):
                if tensor.is_floating_point() and not tensor.requires_grad:
                    tensor.data = tensor.data.to(plan.dtype)
        device = self._model.hardware.device
        self._scaler = torch.amp.GradScaler(device.type, enabled=plan.precision == "fp16")

    def state(self) -> dict[str, Any]:
        """Return what besides the weights is needed to go on."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned, with the rates of this recipe: it may have more steps."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        schedule = self._schedule
        schedule._last_lr = [
            base * share(schedule.last_epoch)
            for base, share in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self._optimizer.param_groups, schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        self._scaler.load_state_dict(state["scaler"])

    @property
    def timesteps(self) -> int:
        """How many steps of noise the model knows."""
        return self._model.timesteps

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Learn nothing and drop nothing out for as long as the block lasts."""
        try:
            for part in self.parts.values():
                part.eval()
            with torch.no_grad():
                yield
        finally:
            for part in self.parts.values():
                part.train()

    def losses(self, batch: Batch) -> torch.Tensor:
        """Return the error of each picture of a batch, as it is measured: without weights."""
        with self.plan.autocast(self._model.hardware.device):
            prediction = self._model.predict(batch.noisy, batch.timesteps, batch.texts, batch.conditions)
        return errors(prediction, batch.target)

    def step(self, step: int) -> Measured:
        """Take the step that comes after ``step`` others."""
        started_at = time.perf_counter()
        numbers = self._numbers(step)
        # All processes know the sizes of all batches, so they need not ask how many pictures a step has.
        shown = sum(len(self._order.batch(number)) for number in numbers)
        total = torch.zeros((), device=self._model.hardware.device)
        for number in numbers[self._processes.index :: self._processes.count]:
            total += self._accumulate(number, shown)
        loss, norm = self._settle(total)
        rate = float(self._schedule.get_last_lr()[0])
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        scale = self._scaler.get_scale()
        is_sound = is_finite or (self._scaler.is_enabled() and math.isfinite(loss) and scale > SMALLEST_SCALE)
        if is_finite or self._scaler.is_enabled():
            self._scaler.step(self._optimizer)  # by itself leaves out what is not finite
            self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()
        seconds = time.perf_counter() - started_at
        return Measured(loss, norm, rate, self._order.epoch_of(numbers[0]), seconds, is_finite, is_sound)

    def forget(self) -> None:
        """Let go of what a step that failed has left."""
        self._optimizer.zero_grad(set_to_none=True)

    def skip(self) -> None:
        """Count a step that was not taken, so that the learning rate stays in time."""
        self.forget()
        self._schedule.step()

    def _accumulate(self, number: int, shown: int) -> torch.Tensor:
        """Add to the gradients what one batch says; return its share of the loss."""
        recipe = self._recipe
        places = self._order.batch(number)
        torch.manual_seed(torch_seed(Purpose.DROPOUT, recipe.seed, number))
        share = torch.zeros((), device=self._model.hardware.device)
        for start in range(0, len(places), self.plan.micro_batch):
            part = places[start : start + self.plan.micro_batch]
            first = number * recipe.batch_size + start
            batch = self._pictures.training_batch(
                [self._examples[place] for place in part], range(first, first + len(part))
            )
            losses = self.losses(batch)
            if recipe.min_snr_gamma is not None:
                schedule = self._model.schedule
                losses = losses * min_snr_weights(
                    batch.timesteps,
                    schedule.alphas_cumprod,
                    gamma=recipe.min_snr_gamma,
                    prediction=schedule.config.prediction_type,
                )
            loss = losses.sum() / shown
            self._scaler.scale(loss).backward()
            share += loss.detach()
        return share

    def _settle(self, total: torch.Tensor) -> tuple[float, float]:
        """Bring the gradients of all processes together and clip them; return the loss, and their norm before."""
        self._processes.sum_gradients(self.weights)
        total = self._processes.sum(total)
        self._scaler.unscale_(self._optimizer)
        limit = self._recipe.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(
            self.weights, math.inf if limit is None else limit, foreach=True
        )
        loss, size = torch.stack([total, norm.to(total)]).tolist()  # the one wait for the device in a step
        return loss, size

    def _numbers(self, step: int) -> range:
        """Return the numbers of the batches of a step, of all processes."""
        count = self._recipe.gradient_accumulation_steps * self._processes.count
        return range(step * count, (step + 1) * count)


def _set_checkpointing(part: Any, *, is_on: bool) -> None:
    if hasattr(part, "enable_gradient_checkpointing"):  # one of diffusers
        (part.enable_gradient_checkpointing if is_on else part.disable_gradient_checkpointing)()
    elif is_on:
        # The other kind gives no gradients where the input has none, as behind frozen embeddings.
        part.activation_checkpointing_enable({"use_reentrant": False})
    else:
        part.activation_checkpointing_disable()
