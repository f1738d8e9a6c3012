"""The options and the course of events that `manage.py train_starter_model` and `python -m training.starter` share."""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from training.starter import MODEL_DIR
from training.starter.architecture import Sizes
from training.starter.evaluation import contact_sheet, evaluate
from training.starter.publishing import publish
from training.starter.trainer import Recipe, train

QUICK_SIZES = Sizes(text_width=32, text_layers=1, vae_channels=(8, 8, 8, 8), unet_channels=(16, 32), heads=2)
QUICK = Recipe(
    sizes=QUICK_SIZES,
    vae_steps=4,
    vae_batch=2,
    pictures=8,
    denoiser_steps=4,
    denoiser_batch=2,
    warmup_steps=1,
    steps_between_reports=2,
    steps_between_saves=2,
)
"""A recipe for tests: every step of the way, in seconds, to a model that draws noise."""

DEFAULT_WORK_DIR = Path("var/starter")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="what all randomness comes from")
    parser.add_argument("--output", type=Path, default=MODEL_DIR, help="folder of the model, written or evaluated")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=DEFAULT_WORK_DIR,
        help="where the state of training is kept; a training that was killed goes on from there",
    )
    parser.add_argument("--evaluate-only", action="store_true", help="measure the model in --output, train nothing")
    parser.add_argument("--contact-sheet", type=Path, help="write the held-out pictures to this PNG file")
    parser.add_argument("--quick", action="store_true", help="a few tiny steps, to try the command out")


def run(options: argparse.Namespace, write: Callable[[str], object]) -> bool:
    """Train unless told not to, measure, publish; return whether the quality bar is met."""
    with torch_threads(1):
        if options.evaluate_only:
            pipeline = load(options.output)
            evaluation, pictures = evaluate(pipeline)
        else:
            recipe = replace(QUICK if options.quick else Recipe(), seed=options.seed)

            def report(stage: str, steps_done: int, steps_in_all: int, loss: float) -> None:
                write(f"{stage}: step {steps_done} of {steps_in_all}, loss {loss:.4f}")

            pipeline = train(recipe, options.work_dir, report)
