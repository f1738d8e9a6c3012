"""How well the model does on pictures that it does not learn from.

The loss of the batches says little, for it jumps with the noise that was drawn. Here picture, noise and timesteps are always
the same, so that two measurements differ by nothing but the weights.
"""

from collections.abc import Callable, Sequence

import torch

from training.trainer.batches import Pictures
from training.trainer.examples import Example
from training.trainer.processes import Processes
from training.trainer.stepping import Stepper

PLACES = (0.125, 0.375, 0.625, 0.875)
"""The timesteps, as shares of all."""


def measure(
    examples: Sequence[Example],
    pictures: Pictures,
    stepper: Stepper,
    *,
    processes: Processes,
    report: Callable[[int, int], None],
) -> float:
    """Return the mean squared error over all examples and timesteps.

    Args:
        examples: the pictures that are kept apart, at least one.
        pictures: what was encoded of them.
        stepper: tells the error of each picture of a batch.
        processes: among whom the pictures are divided.
        report: is told how many are done, and of how many. It may raise what ends the measurement.
    """
    when = [int(place * stepper.timesteps) for place in PLACES]
    total = torch.zeros((), dtype=torch.float64)
    mine = examples[processes.index :: processes.count]
    with stepper.measuring():
        for done, example in enumerate(mine, start=1):
            batch = pictures.validation_batch(example, when)
            for start in range(0, len(when), stepper.plan.micro_batch):
                part = batch.part(start, start + stepper.plan.micro_batch)
                total += stepper.losses(part).cpu().double().sum()
            report(done, len(mine))
    return float(processes.sum(total.to(processes.device, torch.float32))) / (len(examples) * len(when))
