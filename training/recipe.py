"""The recipe of a training: everything that decides its result but the model, the pictures and the trigger word.

One typed schema for the API, for the row of a run and for the trainer. Needs neither Django nor torch.
"""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LARGEST_SEED = 2**31 - 1
LONGEST_PROMPT = 2000
MOST_SAMPLE_PROMPTS = 8

Finite = Annotated[float, Field(allow_inf_nan=False)]

Optimizer = Literal["adamw", "adamw8bit", "adafactor", "prodigy"]
Schedule = Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"]
Precision = Literal["auto", "no", "fp16", "bf16"]
Targets = Literal["attention", "transformer"]
"""``attention``: the four projections of each attention. ``transformer``: every linear layer and 1x1 convolution in the
transformer blocks, as sd-scripts chooses them."""


class Recipe(BaseModel):
    """How an adapter is trained. Unknown names are errors; nothing but whole numbers for floats is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1] = 1
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    steps: Annotated[int, Field(ge=1)] = 1500
    """Optimizer steps."""

    resolution: Annotated[int, Field(ge=8, multiple_of=8)] = 512
    """Pictures are scaled to about its square in pixels."""
    bucket_step: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    """Sides of buckets are multiples of it."""
    allow_upscaling: bool = False
    center_crop: bool = True
    """False: what is cut off is drawn from the seed, once for each picture."""
    random_flip: bool = True
    repeats: dict[str, Annotated[int, Field(ge=1, le=1000)]] = {}
    """How often the pictures of an album are shown in one epoch, by its id; 1 where nothing is said."""
    caption_dropout: Annotated[Finite, Field(ge=0, le=1)] = 0.0
    """The share of captions that are left empty."""
    validation_share: Annotated[Finite, Field(ge=0, le=0.5)] = 0.1
    validation_every: Annotated[int, Field(ge=0)] = 100
    """Steps between two measurements by pictures kept apart; 0: none."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Measurements without a lower loss, after which it stops early. None: it does not."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[Finite, Field(gt=0, le=4096)] = 8.0
    dropout: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    target_modules: (
        Targets | Annotated[tuple[str, ...], Field(min_length=1, max_length=100, strict=False)]
    ) = "attention"
    """A choice by name, or the endings of the names of layers."""
    train_text_encoder: bool = False
    text_encoder_learning_rate: Annotated[Finite, Field(gt=0, le=1)] | None = None
    """None: the same as ``learning_rate``."""

    optimizer: Optimizer = "adamw"
    learning_rate: Annotated[Finite, Field(gt=0, le=1)] = 1e-4
    weight_decay: Annotated[Finite, Field(ge=0, le=1)] = 0.01
    lr_scheduler: Schedule = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    lr_cycles: Annotated[int, Field(ge=1, le=100)] = 1
    """Of ``cosine_with_restarts``."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 1
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=1024)] = 1
    gradient_checkpointing: bool = False
    mixed_precision: Precision = "auto"
    """``auto``: bf16 where the device has it, fp16 on other GPUs, none on a CPU."""
    max_grad_norm: Annotated[Finite, Field(gt=0)] | None = 1.0
    min_snr_gamma: Annotated[Finite, Field(gt=0, le=100)] | None = None
    noise_offset: Annotated[Finite, Field(ge=0, le=1)] = 0.0

    checkpoint_every: Annotated[int, Field(ge=0)] = 500
    """Steps between two checkpoints; 0: only at the end, and when it is stopped."""
    keep_checkpoints: Annotated[int, Field(ge=1, le=100)] = 2
    """The latest so many are kept, beside the best and those that are pinned."""
    sample_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two rounds of sample pictures; 0: none."""
    sample_prompts: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT)], ...],
        Field(max_length=MOST_SAMPLE_PROMPTS, strict=False),
    ] = ()
    sample_negative_prompt: Annotated[str, Field(max_length=LONGEST_PROMPT)] = ""
    sample_steps: Annotated[int, Field(ge=1, le=150)] = 25
    sample_guidance_scale: Annotated[Finite, Field(ge=0, le=30)] = 7.0
    sample_width: Annotated[int, Field(ge=8, le=2048, multiple_of=8)] = 512
    sample_height: Annotated[int, Field(ge=8, le=2048, multiple_of=8)] = 512
    sample_seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.resolution < self.bucket_step:
            raise ValueError("bucket_step lies above resolution")
        if self.warmup_steps > self.steps:
            raise ValueError("warmup_steps lies above steps")
        if self.sample_every and not self.sample_prompts:
            raise ValueError("sample_every needs sample_prompts")
        if self.text_encoder_learning_rate is not None and not self.train_text_encoder:
            raise ValueError("text_encoder_learning_rate needs train_text_encoder")
        return self

    @property
    def effective_batch(self) -> int:
        """How many pictures one optimizer step sees, on one device."""
        return self.batch_size * self.gradient_accumulation_steps

    def digest(self) -> str:
        """Return the SHA-256 of the recipe in canonical form."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
