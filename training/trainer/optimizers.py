"""Optimizers and learning rates by the names of the recipe."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from training.pipelines.failures import FailureCode, RequestFailed
from training.recipe import Recipe
from training.trainer.networks import DENOISER, trainable

OPTIONAL = {"adamw8bit": ("bitsandbytes", "bitsandbytes"), "prodigy": ("prodigyopt", "prodigyopt")}
"""Optimizers of packages that are not always there: what to import, and what to install."""


def check_optimizer(recipe: Recipe) -> None:
    """See beforehand that the optimizer of a recipe is there.

    Raises:
        RequestFailed: it needs a package that is not installed (``bad_request``).
    """
    if recipe.optimizer in OPTIONAL:
        _package(recipe.optimizer)


def make_optimizer(parts: Mapping[str, nn.Module], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe for the adapter in the parts of a model.

    Raises:
        RequestFailed: it needs a package that is not installed (``bad_request``).
    """
    of_texts = [module for part, module in parts.items() if part != DENOISER]
    groups = [{"params": trainable([parts[DENOISER]]), "lr": recipe.learning_rate}]
    if of_texts:
        rate = recipe.text_encoder_learning_rate or recipe.learning_rate
        groups.append({"params": trainable(of_texts), "lr": rate})
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        # Fused, for an adapter has hundreds of small tensors, and to walk through them takes longer than to add.
        return torch.optim.AdamW(groups, **options, fused=True)
    if recipe.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # By the rate of the recipe alone: it would scale it by the size of the weights, half of which begin at 0.
        return Adafactor(groups, **options, scale_parameter=False, relative_step=False)
    package = _package(recipe.optimizer)
    if recipe.optimizer == "adamw8bit":
        return package.optim.AdamW8bit(groups, **options)
    # As its author advises for diffusion models.
    return package.Prodigy(groups, **options, use_bias_correction=True, safeguard_warmup=True)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe) -> LambdaLR:
    """Return the learning rates of a recipe over its steps.

    Raises:
        RequestFailed: the rate is too small for it (``bad_request``).
    """
    name = recipe.lr_scheduler
    try:
        return get_scheduler(
            "constant_with_warmup" if name == "constant" else name,
            optimizer,
            num_warmup_steps=recipe.warmup_steps,
            num_training_steps=recipe.steps,
            num_cycles=recipe.lr_cycles,
        )
    except ValueError as error:  # the polynomial one ends at a rate above zero
        raise RequestFailed(
            FailureCode.BAD_REQUEST, f"“recipe.learning_rate” is too small for the schedule “{name}”."
        ) from error


def _package(name: str) -> Any:
    module, package = OPTIONAL[name]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RequestFailed(
            FailureCode.BAD_REQUEST,
            f"The optimizer “{name}” needs the package {package}, which is not installed.",
        ) from error
