"""The processes of one training. ``accelerate launch`` starts one for each GPU; by itself there is one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce

from training.pipelines.hardware import choose_hardware

PATIENCE = timedelta(hours=12)
"""How long processes wait for one another: while one encodes the pictures, the others have nothing to say."""


class Processes:
    """What the processes of one training do together. With one process, nothing of it costs anything."""

    def __init__(self, device: str = "auto") -> None:
        """Find the others, if there are any, and the device of this one.

        Raises:
            RequestFailed: this machine does not have that device (``bad_request``).
        """
        self.device = choose_hardware(device).device
        self._state = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self._state = PartialState(cpu=self.device.type == "cpu", timeout=PATIENCE)
            self.device = self._state.device
        self.count: int = self._state.num_processes if self._state else 1
        self.index: int = self._state.process_index if self._state else 0

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and talks to the guard."""
        return self.index == 0

    def sum_gradients(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Replace the gradients of each process by the sum of all. They are few and small, so they travel as one."""
        if self.count == 1:
            return
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        total = reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="sum")
        for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        return tensor if self.count == 1 else reduce(tensor, reduction="sum")

    def agree(self, *, said: bool) -> bool:
        """Return what the main process says: it alone hears the guard."""
        if self.count == 1:
            return said
        answer = [said]
        broadcast_object_list(answer)
        return answer[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do something before the others, who find it done."""
        if self._state is None:
            yield
            return
        with self._state.main_process_first():
            yield

    def wait(self) -> None:
        """Wait until all have come here."""
        if self._state is not None:
            self._state.wait_for_everyone()
