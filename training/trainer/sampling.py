"""Pictures on the way, drawn with the very weights that are trained; they leave no trace in the training."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from training.pipelines.schedulers import make_scheduler
from training.recipe import Recipe
from training.trainer.assignment import RunFolder
from training.trainer.memory import Plan
from training.trainer.model import Model
from training.trainer.stopping import Stop


@dataclass(frozen=True)
class Sample:
    """A picture that was written."""

    index: int
    prompt: str
    file: Path


def check(model: Model, recipe: Recipe) -> None:
    """See beforehand that the sample pictures of a recipe can be drawn.

    Raises:
        RequestFailed: they cannot (``bad_request``).
    """
    if recipe.sample_prompts:
        make_scheduler(None, model.pipeline.scheduler, steps=recipe.sample_steps)


def draw(
    model: Model,
    recipe: Recipe,
    plan: Plan,
    folder: RunFolder,
    *,
    step: int,
    stop: Stop,
    tell: Callable[[Sample], None],
    report: Callable[[float], None],
) -> None:
    """Draw the sample pictures of a recipe, and tell of each.

    Args:
        model: with the adapter as it is now.
        recipe: says what to draw, and how.
        plan: how to compute.
        folder: of the run.
        step: after which step it is.
        stop: is asked before each picture, and at each step of one.
        tell: is told of each picture that was written.
        report: is told after each step of a picture how many pictures are done, the part of that one included.

    Raises:
        Stopping: the training was asked to end.
    """
    folder.samples.mkdir(parents=True, exist_ok=True)
    pipeline = copy.copy(model.pipeline)  # of the same parts: only the scheduler is its own
    was_training = {part: part.training for part in model.parts.values()}
    resting = (model.vae, *model.text_encoders.values())
    try:
        for part in was_training:
            part.eval()  # no dropout
        with model.at_work(*resting), torch.random.fork_rng(), torch.no_grad():
            for index, prompt in enumerate(recipe.sample_prompts):
                stop.check()
                pipeline.scheduler = make_scheduler(None, model.pipeline.scheduler, steps=recipe.sample_steps)

                def look(share: float, done: int = index) -> None:
                    stop.check()
                    report(done + share)

                with plan.autocast(model.hardware.device):
                    latents = _draw(pipeline, recipe, prompt, look)
                # Outside, in single precision: the autoencoder of SDXL computes nonsense in half precision.
                picture = pipeline.image_processor.postprocess(model.decode(latents), output_type="pil")[0]
                file = folder.samples / f"step-{step:06d}-{index}.png"
                _save(picture, file)
                tell(Sample(index, prompt, file))
    finally:
        for part, training in was_training.items():
            part.train(training)


def _draw(pipeline: Any, recipe: Recipe, prompt: str, look: Callable[[float], None]) -> torch.Tensor:
    """Return the latents of one picture; ``look`` is told after each step which part of all it was."""

    def after_step(pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        look((step + 1) / pipeline.num_timesteps)
        return tensors

    return pipeline(
        prompt,
        negative_prompt=recipe.sample_negative_prompt or None,
        num_inference_steps=recipe.sample_steps,
        guidance_scale=recipe.sample_guidance_scale,
        width=recipe.sample_width,
        height=recipe.sample_height,
        # On the CPU, so that the same seed is the same noise on every device, as when pictures are generated.
        generator=torch.Generator("cpu").manual_seed(recipe.sample_seed),
        callback_on_step_end=after_step,
        output_type="latent",
    ).images


def _save(picture: Image.Image, file: Path) -> None:
    partial = file.with_suffix(".part")
    picture.save(partial, format="PNG")
    partial.replace(file)
