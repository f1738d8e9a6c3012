"""The options and the course of events that `manage.py train_starter_model` and `python -m training.starter` share."""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from training.starter import MODEL_DIR
from training.starter.architecture import Sizes
from training.starter.drawings import held_out_prompts
from training.starter.evaluation import contact_sheet, evaluate
from training.starter.mixed_precision import one_thread
from training.starter.publishing import load, save_weights, write_model_card
from training.starter.trainer import Recipe, train

QUICK_SIZES = Sizes(text_width=32, text_layers=1, vae_channels=(8, 8, 8, 8), unet_channels=(16, 32), heads=2)
QUICK = Recipe(
    sizes=QUICK_SIZES,
    vae_steps=4,
    vae_batch=2,
    pictures=8,
    denoiser_steps=4,
    denoiser_batch=2,
    text_encoder_steps=2,
    late_caption_steps=2,
    warmup_steps=1,
    steps_between_reports=2,
    steps_between_saves=2,
)
"""A recipe for tests: every step of the way, in seconds, to a model that draws noise."""

DEFAULT_WORK_DIR = Path("var/starter")


class OutputNeeded(Exception):
    """A trial would have overwritten the model that ships."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seed", type=int, default=Recipe().seed, help="what all randomness comes from")
    parser.add_argument(
        "--output", type=Path, default=MODEL_DIR, help="folder of the model, written or evaluated"
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=DEFAULT_WORK_DIR,
        help="where the state of training is kept; a training that was killed goes on from there",
    )
    parser.add_argument(
        "--evaluate-only", action="store_true", help="measure the model in --output, train nothing"
    )
    parser.add_argument("--contact-sheet", type=Path, help="write the held-out pictures to this PNG file")
    parser.add_argument("--quick", action="store_true", help="a few tiny steps, to try the command out")


def run(options: argparse.Namespace, write: Callable[[str], object]) -> bool:
    """Train unless told not to, measure what was saved, and write the measurements as JSON.

    Returns whether the model meets the quality bar; a model that does not is written all the same.

    Raises:
        OutputNeeded: a quick trial without a folder of its own.
        OtherRecipe: the work folder holds the state of a training with other settings.
        ModelTooLarge: the model weighs more than may be committed.
        NoModel: there is nothing to evaluate.
    """
    recipe = replace(QUICK if options.quick else Recipe(), seed=options.seed)
    if not options.evaluate_only:
        if options.quick and options.output == MODEL_DIR:
            raise OutputNeeded("--quick makes a model that draws noise: name a folder for it with --output.")

        def report(stage: str, steps_done: int, steps_in_all: int, loss: float) -> None:
            write(f"{stage}: step {steps_done} of {steps_in_all}, loss {loss:.4f}")

        save_weights(train(recipe, options.work_dir, report), options.output)
    pipeline = load(options.output)
    prompts = held_out_prompts()[:: 48 if options.quick else 1]
    write("measuring: the judge on clean drawings first, then reconstructions, then the held-out prompts")
    with one_thread():
        evaluation, pictures = evaluate(pipeline, prompts=prompts, write=write)
    if not options.evaluate_only:
        write_model_card(pipeline, recipe, evaluation, options.output)
    if options.contact_sheet:
        contact_sheet(pictures).save(options.contact_sheet, format="PNG")
    write(json.dumps(evaluation.as_dict(), indent=2))
    return evaluation.held_out.meets_bar()
