"""What a training tells of itself: events to its guard, and every step to a file."""

import json
import math
import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from imagehub.jobs.protocol import Channel

SECONDS_BETWEEN_EVENTS = 0.5
"""Of steps and of what is done within a phase. What lies between them is told with the next."""

POINTS_IN_EVENT = 2000
"""So that an event stays far below the longest line of the protocol."""

LOSS_MEMORY = 0.98
"""Share of the average loss that the next step leaves as it is: it looks back about fifty steps."""

RECENT_STEPS = 10
SLOW = 4.0
"""A GPU whose memory has run over into that of the machine does not fail, it crawls: ten steps in a row, each of them this
many times as slow as the median, are worth a word."""


class Progress:
    """The one voice of a training. Other processes than the main one have it, too, and say nothing."""

    def __init__(self, channel: Channel | None, metrics: Path, *, total: int) -> None:
        """Speak on a channel (None: not at all), and write each step to a file.

        Args:
            channel: to the guard.
            metrics: one JSON object a line.
            total: how many steps there will be.
        """
        self.loss_ema: float | None = None
        self.seconds: dict[str, float] = {}
        """How long each phase took, of this process."""
        self._channel, self._metrics, self._total = channel, metrics, total
        self._phases: list[tuple[str, float, int]] = []
        self._phase_since = time.monotonic()
        self._last_event = -math.inf
        self._points: list[tuple[int, float, float, float, float]] = []
        self._epoch = 0
        self._durations: deque[float] = deque(maxlen=200)
        self._is_slow = False

    def emit(self, event: str, **fields: Any) -> None:
        """Send one event. Safe to call from any thread."""
        if self._channel is not None:
            self._channel.emit(event, **fields)

    @contextmanager
    def phase(self, name: str, total: int = 1, *, done: int = 0) -> Iterator[None]:
        """Be busy with something for as long as the block lasts, and then again with what was before."""
        self._count_time()
        self._phases.append((name, done, total))
        self._tell_phase()
        try:
            yield
        finally:
            self._count_time()
            self._phases.pop()
            if self._phases:
                self._tell_phase()

    def done(self, done: float, total: int) -> None:
        """Tell how much of the phase is done; not more often than twice a second, but the end of it always."""
        self._phases[-1] = (self._phases[-1][0], done, total)
        now = time.monotonic()
        if done == total or now - self._last_event >= SECONDS_BETWEEN_EVENTS:
            self._last_event = now
            self._tell_phase()

    def resume(self, step: int | None) -> None:
        """Forget what was measured behind a step, because it will be measured again; all of it for None."""
        if self._channel is None or not self._metrics.exists():
            return
        last = -1 if step is None else step
        kept = [line for line in self._metrics.read_text().splitlines() if _step_of(line) <= last]
        partial = self._metrics.with_suffix(".part")
        partial.write_text("".join(f"{line}\n" for line in kept))
        partial.replace(self._metrics)

    def step(
        self, step: int, *, epoch: int, loss: float, learning_rate: float, grad_norm: float, seconds: float
    ) -> None:
        """Tell of an optimizer step: its loss, its rate, the norm of its gradients before clipping and its duration."""
        self.loss_ema = (
            loss if self.loss_ema is None else LOSS_MEMORY * self.loss_ema + (1 - LOSS_MEMORY) * loss
        )
        self._epoch = epoch
        self._durations.append(seconds)
        self._phases[-1] = (self._phases[-1][0], step, self._total)
        point = (step, _rounded(loss), learning_rate, _rounded(grad_norm), round(seconds, 5))
        self._points.append(point)
        self._warn_when_slow()
        now = time.monotonic()
        if (
            now - self._last_event < SECONDS_BETWEEN_EVENTS
            and step < self._total
            and len(self._points) < POINTS_IN_EVENT
        ):
            return
        self._last_event = now
        self.flush()

    def flush(self) -> None:
        """Tell of the steps that nobody was told of yet, and write them to the file."""
        if not self._points:
            return
        points, self._points = self._points, []
        step, loss, learning_rate, grad_norm, seconds = points[-1]
        if self._channel is not None:
            names = ("step", "loss", "learning_rate", "grad_norm", "seconds")
            with self._metrics.open("a") as file:
                file.writelines(json.dumps(dict(zip(names, point, strict=True))) + "\n" for point in points)
        self.emit(
            "step",
            step=step,
            total=self._total,
            epoch=self._epoch,
            loss=loss,
            loss_ema=_rounded(self.loss_ema or loss),
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            seconds=seconds,
            eta_seconds=round((self._total - step) * statistics.median(self._durations), 1),
            peak_memory_bytes=peak_memory_bytes(),
            points=points,
        )

    def validation(self, step: int, loss: float, *, is_best: bool) -> None:
        """Tell, and write down, what the pictures that are kept apart say."""
        self.flush()
        if self._channel is not None:
            with self._metrics.open("a") as file:
                file.write(json.dumps({"step": step, "validation_loss": loss}) + "\n")
        self.emit("validation", step=step, loss=loss, is_best=is_best)

    def warn(self, code: str, detail: str) -> None:
        """Tell of something that does not stop the training, in a sentence for its owner."""
        self.emit("warning", code=code, detail=detail)

    def summary(self) -> Mapping[str, float]:
        """Return how many seconds each phase took."""
        self._count_time()
        return {name: round(seconds, 3) for name, seconds in self.seconds.items()}

    def _tell_phase(self) -> None:
        name, done, total = self._phases[-1]
        self.emit("phase", phase=name, done=done, total=total)

    def _count_time(self) -> None:
        """Add the time since this was last done to the phase it was spent on."""
        now = time.monotonic()
        if self._phases:
            name = self._phases[-1][0]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._phase_since
        self._phase_since = now

    def _warn_when_slow(self) -> None:
        if self._is_slow or len(self._durations) < 3 * RECENT_STEPS:
            return
        usual = statistics.median(self._durations)
        if min(list(self._durations)[-RECENT_STEPS:]) > SLOW * usual:
            self._is_slow = True
            self.warn(
                "slow",
                f"Steps take more than {SLOW:g} times as long as usual; the memory of the device may have run over.",
            )


def peak_memory_bytes() -> int:
    """Return the most memory that this process has used: of the GPU if there is one in use, else its resident size."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    # Linux hands down what ``getrusage`` tells to a child: the size of a worker that has grown large would count as ours.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _rounded(value: float) -> float:
    """Return a number with seven digits, which is what float32 knows of it."""
    return float(f"{value:.7g}")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf  # half written when a process died: nothing to keep
