"""How a step is computed, and the ladder down which a training goes when it does not fit into memory.

No rung changes how many pictures a step learns from, nor which.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch

from training.pipelines.failures import FailureCode, RequestFailed
from training.recipe import Recipe

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Plan:
    """What may give way to memory."""

    gradient_checkpointing: bool
    micro_batch: int
    """So many pictures go through the model at once; a batch of more goes in parts."""
    precision: str
    """``no``, ``bf16`` or ``fp16``: the format of the frozen weights, and of what is computed with them."""

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device) -> Self:
        """Return what a recipe asks for on a device.

        Raises:
            RequestFailed: the device lacks the format (``bad_request``).
        """
        return cls(
            recipe.gradient_checkpointing, recipe.batch_size, _precision(recipe.mixed_precision, device)
        )

    @classmethod
    def parse(cls, said: dict[str, Any]) -> Self:
        """Read what :meth:`to_json` returned."""
        return cls(**said)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        return asdict(self)

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """Compute in the format of the plan for as long as the block lasts, where that is safe."""
        if self.precision == "no":
            return nullcontext()
        return torch.autocast(device.type, self.dtype)

    def rungs(self, device: torch.device) -> Iterator[tuple[str, Self]]:
        """Yield what to try next, and what it is called: what costs least comes first."""
        if not self.gradient_checkpointing:
            yield "gradient_checkpointing", replace(self, gradient_checkpointing=True)
        if self.micro_batch > 1:
            yield "micro_batch", replace(self, micro_batch=(self.micro_batch + 1) // 2)
        if self.precision == "no" and has_bfloat16(device):
            yield "precision", replace(self, precision="bf16")

    def describe(self, rung: str) -> str:
        """Return what a rung changes, as a person would say it."""
        return str(getattr(self, rung))


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16."""
    return device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())


def _precision(asked: str, device: torch.device) -> str:
    if asked == "auto":
        if device.type != "cuda":
            return "no"  # half precision is slower on a CPU; on MPS nobody has tried it here
        return "bf16" if has_bfloat16(device) else "fp16"
    if (asked == "bf16" and not has_bfloat16(device)) or (asked == "fp16" and device.type != "cuda"):
        raise RequestFailed(
            FailureCode.BAD_REQUEST,
            f"“recipe.mixed_precision”: this machine's {device.type} device does not train in {asked}.",
        )
    return asked
