"""What a training will take: memory of the device, time, and disk. First calculated, and then measured by what was trained.

Every run notes what it took in truth. Runs with the same base model on the same kind of device correct what is calculated
for others; one that does the very same tells it. Needs no torch, for the web process asks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from pydantic import ValidationError

from imagehub.config import get_config
from imagehub.jobs.models import JobStatus
from training.models import BaseModel, TrainingRun
from training.recipe import Recipe
from training.services.base_models import path_of_base_model
from training.weights.models import read_config
from training.weights.sizes import ModelSize, size_of_model

GUESSED_DEVICE = "cpu"
MEASURED_RUNS = 20
"""So many of the latest runs are looked at."""

VAE_FACTOR = 8
LATENT_CHANNELS = 4
TOKENS = 77

CONTEXT_BYTES = {"cuda": 800_000_000}
"""What the driver takes of a GPU before anything is computed. torch does not count it."""
LIBRARY_BYTES = 465_000_000
"""What a process takes that has imported torch, diffusers and transformers: measured with the starter model on Linux."""

ACTIVATION_BYTES = 236_000
CHECKPOINTED_BYTES = 73_000
ACTIVATION_CHANNELS = 320
"""What is kept for the way back, for each pixel of a latent in 16 bits, with and without gradient checkpointing.

Counted on a U-Net of SD 1.5 with an adapter for its attention on the meta device, by the tensors that autograd saves; what a
quadratic attention would add is left out, for none is computed so. With checkpointing, twice what is saved between blocks:
as much again while one is computed anew. It grows with the channels of the first block, which has the most pixels. SDXL,
which has no attention there, was counted at nearly twice as much.
"""
ACTIVATIONS_OF_XL = 1.87
SINGLE_PRECISION = 1.73
"""Not 2: some is kept in 32 bits in any case."""

OPERATIONS = 0.2
"""Of a step forward, for each parameter of the U-Net and pixel of the latent, in multiplications and additions: counted as
above, 0.206 for SD 1.5 and 0.149 for SDXL."""
WAY_BACK = {False: 2.13, True: 2.87}
"""Times a step forward, all in all; the latter with gradient checkpointing. Counted as above."""

THROUGHPUT = {"cpu": 2e10, "mps": 2e12, "cuda": 2e13}
"""Operations a second that a device is guessed to do (a CPU: one thread), until something was trained on it."""
STEP_SECONDS = 0.03
"""What a step takes at least, however small the model."""
OVERHEAD_SECONDS = 30.0
"""For loading, encoding and saving, until it was measured."""

BYTES_PER_NUMBER = {"adamw": 16, "adamw8bit": 10, "adafactor": 9, "prodigy": 24}
"""Of an adapter in training: weight and gradient in 32 bits, and what the optimizer remembers."""
SAVED_PER_NUMBER = {"adamw": 12, "adamw8bit": 6, "adafactor": 5, "prodigy": 20}
"""In a checkpoint: no gradients."""
EXPORTED_PER_NUMBER = 2
BYTES_OF_METRIC = 150
BYTES_PER_SAMPLED_PIXEL = 1.5

Basis = Literal["calculated", "corrected", "measured"]


@dataclass(frozen=True)
class Estimate:
    """What a training is expected to take."""

    device: str
    """On what kind of device: ``cpu``, ``cuda``, ``mps``."""
    trainable_parameters: int
    memory_bytes: int
    """Of the device, at its peak."""
    memory: Mapping[str, int]
    """What that is for, as calculated: ``weights``, ``adapter``, ``activations``, ``rest``."""
    memory_basis: Basis
    seconds: float
    seconds_per_step: float
    time_basis: Basis
    disk_bytes: int
    disk: Mapping[str, int]
    """What that is for: ``pictures``, ``cache``, ``checkpoints``, ``samples``, ``export``, ``metrics``."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can say it, for :attr:`TrainingRun.estimate`."""
        return asdict(self)


@dataclass(frozen=True)
class _Measured:
    """What a run of the past took."""

    recipe: Recipe
    memory_bytes: int | None
    seconds_per_step: float | None
    overhead_seconds: float | None


def estimate_training(
    recipe: Recipe, base_model: BaseModel, *, pictures: int, picture_bytes: int = 0
) -> Estimate | None:
    """Return what a training is expected to take; None where nobody can tell how large the base model is.

    Args:
        recipe: how it is trained.
        base_model: on what.
        pictures: how many, those to measure by included.
        picture_bytes: the size of their files together, which are copied.
    """
    path = path_of_base_model(base_model)
    size = size_of_model(path, base_model.architecture or None)
    if size is None or "unet" not in size.parameters:
        return None
    channels = read_config(path / "unet" / "config.json").get("block_out_channels") if path else None
    width = channels[0] if isinstance(channels, list) and channels else ACTIVATION_CHANNELS
    device, past = _past(base_model)
    calculation = _Calculation(size, width, device)
    memory = calculation.memory(recipe)
    memory_bytes, memory_basis = _from_the_past(
        recipe,
        sum(memory.values()),
        [(one.recipe, one.memory_bytes) for one in past],
        lambda other: sum(calculation.memory(other).values()),
    )
    pace, time_basis = _from_the_past(
        recipe,
        calculation.seconds_per_step(recipe),
        [(one.recipe, one.seconds_per_step) for one in past],
        calculation.seconds_per_step,
    )
    overheads = [one.overhead_seconds for one in past if one.overhead_seconds is not None]
    disk = calculation.disk(recipe, pictures=pictures, picture_bytes=picture_bytes)
    return Estimate(
        device=device,
        trainable_parameters=calculation.adapter(recipe),
        memory_bytes=round(memory_bytes),
        memory=memory,
        memory_basis=memory_basis,
        seconds=round(recipe.steps * pace + (median(overheads) if overheads else OVERHEAD_SECONDS), 1),
        seconds_per_step=round(pace, 4),
        time_basis=time_basis,
        disk_bytes=sum(disk.values()),
        disk=disk,
    )


@dataclass(frozen=True)
class _Calculation:
    """The sums, for one base model on one kind of device."""

    size: ModelSize
    width: int
    """Channels of the first block of the U-Net."""
    device: str

    def adapter(self, recipe: Recipe) -> int:
        return self.size.of_adapter(
            rank=recipe.rank, targets=recipe.target_modules, with_texts=recipe.train_text_encoder
        )

    def memory(self, recipe: Recipe) -> dict[str, int]:
        parameters = self.size.parameters
        is_half = self._is_half(recipe)
        # On a GPU, what encodes pictures and captions makes room for the training; in main memory all of it stays.
        stays = self.device == "cpu"
        weights = sum(
            count
            for part, count in parameters.items()
            if stays or part == "unet" or (recipe.train_text_encoder and part.startswith("text_encoder"))
        )
        each = float(CHECKPOINTED_BYTES if recipe.gradient_checkpointing else ACTIVATION_BYTES)
        each *= self.width / ACTIVATION_CHANNELS
        each *= ACTIVATIONS_OF_XL if "text_encoder_2" in self.size.adapter else 1
        each *= 1 if is_half else SINGLE_PRECISION
        return {
            "weights": weights * (2 if is_half else 4),
            "adapter": self.adapter(recipe) * BYTES_PER_NUMBER[recipe.optimizer],
            "activations": round(recipe.batch_size * _latent_pixels(recipe) * each),
            "rest": CONTEXT_BYTES.get(self.device, LIBRARY_BYTES),
        }

    def seconds_per_step(self, recipe: Recipe) -> float:
        threads = get_config().training.threads if self.device == "cpu" else 1
        operations = OPERATIONS * self.size.parameters["unet"] * _latent_pixels(recipe)
        operations *= recipe.effective_batch * WAY_BACK[recipe.gradient_checkpointing]
        return STEP_SECONDS + operations / (THROUGHPUT.get(self.device, THROUGHPUT["cpu"]) * threads)

    def disk(self, recipe: Recipe, *, pictures: int, picture_bytes: int) -> dict[str, int]:
        numbers = self.adapter(recipe)
        width = 4 if not self._is_half(recipe) else 2
        # Mean and deviation of each; then the captions, each in as many numbers as the denoiser reads of it.
        latents = pictures * (2 if recipe.random_flip else 1) * LATENT_CHANNELS * _latent_pixels(recipe) * 2
        texts = 0 if recipe.train_text_encoder else pictures * TOKENS * self.size.context_width
        rounds = recipe.steps // recipe.sample_every if recipe.sample_every else 0
        saved = numbers * SAVED_PER_NUMBER[recipe.optimizer]
        return {
            "pictures": picture_bytes,
            "cache": latents * width + texts * 4,
            # Those that are kept, the best, and the one that is being written.
            "checkpoints": saved * (recipe.keep_checkpoints + 2),
            "samples": round(
                rounds
                * len(recipe.sample_prompts)
                * recipe.sample_width
                * recipe.sample_height
                * BYTES_PER_SAMPLED_PIXEL
            ),
            "export": numbers * EXPORTED_PER_NUMBER,
            "metrics": recipe.steps * BYTES_OF_METRIC,
        }

    def _is_half(self, recipe: Recipe) -> bool:
        precision = recipe.mixed_precision
        return self.device == "cuda" if precision == "auto" else precision != "no"


def _latent_pixels(recipe: Recipe) -> int:
    return (recipe.resolution // VAE_FACTOR) ** 2


def _from_the_past(
    recipe: Recipe,
    calculated: float,
    past: Sequence[tuple[Recipe, float | None]],
    calculate: Callable[[Recipe], float],
) -> tuple[float, Basis]:
    """Return what was measured of the very same, or what is calculated, corrected by how far that was off before."""
    measured = [(other, value) for other, value in past if value]
    same = [value for other, value in measured if _shape(other) == _shape(recipe)]
    if same:
        return median(same), "measured"
    if not measured:
        return calculated, "calculated"
    return calculated * median(value / calculate(other) for other, value in measured), "corrected"


def _shape(recipe: Recipe) -> tuple[Any, ...]:
    """Return what of a recipe decides how much memory and time one step takes."""
    return (
        recipe.resolution,
        recipe.batch_size,
        recipe.gradient_accumulation_steps,
        recipe.gradient_checkpointing,
        recipe.mixed_precision,
        recipe.rank,
        recipe.target_modules,
        recipe.train_text_encoder,
        recipe.optimizer,
    )


def _past(base_model: BaseModel) -> tuple[str, list[_Measured]]:
    """Return the kind of device that trainings run on, and what the latest on a base model took there."""
    runs = TrainingRun.objects.exclude(facts={}).newest_first()
    device: str = get_config().training.device
    if device == "auto":
        latest = runs.filter(facts__device__in=list(THROUGHPUT)).values_list("facts", flat=True).first()
        device = latest["device"] if latest else GUESSED_DEVICE
    of_model = runs.filter(base_model=base_model, status=JobStatus.COMPLETED, facts__device=device)
    measured = (_measured(run) for run in of_model[:MEASURED_RUNS])
    return device, [one for one in measured if one is not None]


def _measured(run: TrainingRun) -> _Measured | None:
    facts = run.facts
    try:
        recipe = Recipe.model_validate(run.config)
    except ValidationError:  # of a version before
        return None
    peak = facts.get("peak_memory_bytes")
    if facts.get("changes"):  # it was made to take less
        peak = None
    elif peak is not None:
        peak += CONTEXT_BYTES.get(facts["device"], 0)
    seconds = facts.get("seconds") or {}
    return _Measured(
        recipe=recipe,
        memory_bytes=peak,
        seconds_per_step=facts.get("seconds_per_step"),
        overhead_seconds=sum(seconds.values()) - seconds.get("train", 0.0) if seconds else None,
    )
