"""Training in bfloat16 with float32 master weights, a learning-rate schedule and a moving average.

On a CPU with AMX the bfloat16 convolutions are about five times as fast as float32 ones. Autocast gave most of
that back in conversions (measured), so the modules run wholly in bfloat16 and the optimizer keeps the float32 truth.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 1.0


class MixedPrecisionOptimizer:
    """AdamW over the float32 masters of modules that compute in bfloat16.

    The rate rises linearly during the warm-up, holds for a share of the steps, and then falls along half a cosine
    to zero. The moving average is what should be kept in the end: it is a better model than the last step.
    """

    def __init__(
        self,
        *modules: nn.Module,
        learning_rate: float,
        warmup_steps: int,
        total_steps: int,
        ema_decay: float,
        hold_share: float = 0.0,
    ) -> None:
        self.step_count = 0
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.hold_steps = round(hold_share * total_steps)
        self.ema_decay = ema_decay
        self._weights = [weight for module in modules for weight in module.parameters()]
        self._masters = [weight.detach().float().clone() for weight in self._weights]
        self._average = [master.clone() for master in self._masters]
        self._adamw = torch.optim.AdamW(
            self._masters, lr=learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, foreach=True
        )
        for weight in self._weights:
            weight.data = weight.data.bfloat16()

    def step(self, loss: torch.Tensor) -> None:
        """Take one optimizer step down the gradient of a loss."""
        loss.backward()
        for master, weight in zip(self._masters, self._weights, strict=True):
            # A weight that the loss does not reach, as in a frozen text encoder, stays as it is.
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self._masters, MAX_GRADIENT_NORM)
        self._adamw.param_groups[0]["lr"] = self.rate()
        self._adamw.step()
        self.step_count += 1
        # A young average follows quickly, or the random start would weigh on it for thousands of steps.
        decay = min(self.ema_decay, (1 + self.step_count) / (10 + self.step_count))
        torch._foreach_lerp_(self._average, self._masters, 1 - decay)
        self._load(self._masters)

    def rate(self) -> float:
        """Return the learning rate of the step that comes next."""
        if self.step_count < self.warmup_steps:
            return self.learning_rate * (self.step_count + 1) / self.warmup_steps
        start = max(self.warmup_steps, self.hold_steps)
        progress = max(0, self.step_count - start) / max(1, self.total_steps - start)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving average into the modules, still in bfloat16, for as long as the block lasts."""
        self._load(self._average)
        try:
            yield
        finally:
            self._load(self._masters)

    def finish(self) -> None:
        """Leave the moving average in the modules, in float32, for good."""
        for weight, average in zip(self._weights, self._average, strict=True):
            weight.data = average.clone()

    def save(self, path: Path) -> None:
        """Write everything needed to go on from here, atomically."""
        state = {
            "step_count": self.step_count,
            "masters": self._masters,
            "average": self._average,
            "adamw": self._adamw.state_dict(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a file that `save` wrote, or start at zero where there is none."""
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.step_count = state["step_count"]
        with torch.no_grad():
            torch._foreach_copy_(self._masters, state["masters"])
            torch._foreach_copy_(self._average, state["average"])
        self._adamw.load_state_dict(state["adamw"])
        self._load(self._masters)

    @torch.no_grad()
    def _load(self, values: list[torch.Tensor]) -> None:
        torch._foreach_copy_([weight.data for weight in self._weights], values)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread for as long as the block lasts.

    That is the fastest on a shared machine, and adds up in a fixed order, so the same seed gives the same weights.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def plain_attention() -> AbstractContextManager[None]:
    """Compute attention without the fused kernel for as long as the block lasts.

    On a CPU that kernel is slow backwards: 120 of 300 ms a step (measured), against 20 without it.
    """
    return sdpa_kernel(SDPBackend.MATH)
