"""Measures the starter model on the held-out prompts, with the judge, and never by eye alone."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from training.starter.captions import STYLE_WORDS, plain_caption
from training.starter.drawings import (
    PICTURE_SIZE,
    Combination,
    HeldOutPrompt,
    all_combinations,
    draw,
    held_out_prompts,
    random_drawing,
)
from training.starter.judge import judge

logger = logging.getLogger(__name__)

NUM_INFERENCE_STEPS = 25
GUIDANCE_SCALE = 3.0
"""What the model is measured with, and what to offer as its defaults."""

SET_PROMPT = "Playing card. Art style: watercolor. {caption}. simple"
"""How a themed set asks for a picture; measured beside the plain caption, because colors must bind there too."""

LATE_PROMPT = f"{' '.join(STYLE_WORDS[::3][:45])}. {{caption}}"
"""A caption at the end of a long prompt, where binding two colors to their nouns is hardest."""

DRAWINGS_PER_PROMPT = 5
_CLEAN_SEED = 7

Pictures = list[tuple[Combination, Image.Image]]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares, from 0 to 1, of pictures on which the judge saw what was asked for."""

    pictures: int
    foreground: float
    background: float
    shape: float

    @classmethod
    def of(cls, pictures: Pictures) -> "Accuracy":
        """Judge pictures against the combinations they should show."""
        agreements = [judge(image).agrees_with(combination) for combination, image in pictures]
        shares = {name: float(np.mean([a[name] for a in agreements])) for name in agreements[0]}
        return cls(pictures=len(pictures), **shares)

    def __str__(self) -> str:
        return (
            f"shape color {self.foreground:.1%}, background {self.background:.1%}, "
            f"shape {self.shape:.1%} of {self.pictures} right"
        )

    def meets_bar(self) -> bool:
        """Say whether the colors are right in at least 98 % and the shape in at least 95 %."""
        return min(self.foreground, self.background) >= 0.98 and self.shape >= 0.95


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All measurements of one model, in the order in which they bound each other."""

    judge_on_drawings: Accuracy
    judge_on_reconstructions: Accuracy
    held_out: Accuracy
    held_out_in_set_prompt: Accuracy
    held_out_late_in_prompt: Accuracy
    num_inference_steps: int
    guidance_scale: float
    scheduler: str
    seconds_per_picture: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def evaluate(
    pipeline: StableDiffusionPipeline,
    *,
    prompts: Sequence[HeldOutPrompt] | None = None,
    num_inference_steps: int = NUM_INFERENCE_STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    write: Callable[[str], object] = logger.info,
) -> tuple[Evaluation, Pictures]:
    """Measure a model, writing each result as it comes; also return the pictures of the plain held-out prompts.

    Prompts are all the held-out ones, unless fewer are named.
    """
    prompts = held_out_prompts() if prompts is None else prompts

    def measure(name: str, pictures: Pictures) -> Accuracy:
        accuracy = Accuracy.of(pictures)
        write(f"{name}: {accuracy}")
        return accuracy

    def generated(template: str) -> Pictures:
        return generate(
            pipeline,
            prompts,
            template=template,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )

    drawings = clean_drawings(DRAWINGS_PER_PROMPT * len(prompts))
    judge_on_drawings = measure("judge on clean drawings", drawings)
    judge_on_reconstructions = measure("judge on reconstructions", reconstruct(pipeline, drawings))
    started = perf_counter()
    pictures = generated("{caption}")
    seconds = (perf_counter() - started) / len(pictures)
    evaluation = Evaluation(
        judge_on_drawings=judge_on_drawings,
        judge_on_reconstructions=judge_on_reconstructions,
        held_out=measure("held-out prompts", pictures),
        held_out_in_set_prompt=measure("held-out prompts in a set prompt", generated(SET_PROMPT)),
        held_out_late_in_prompt=measure("held-out prompts late in a prompt", generated(LATE_PROMPT)),
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        scheduler=type(pipeline.scheduler).__name__,
        seconds_per_picture=round(seconds, 3),
    )
    return evaluation, pictures


def clean_drawings(count: int) -> Pictures:
    """Draw pictures of any combination, held out or not, the same ones every time."""
    rng = np.random.default_rng(_CLEAN_SEED)
    drawn = [random_drawing(rng, all_combinations()) for _ in range(count)]
    return [(drawing.combination, draw(drawing)) for drawing in drawn]


@torch.inference_mode()
def reconstruct(pipeline: StableDiffusionPipeline, pictures: Pictures) -> Pictures:
    """Send pictures through the autoencoder and back: no denoiser can do better than this."""
    vae, processor = pipeline.vae, pipeline.image_processor
    restored: Pictures = []
    for start in range(0, len(pictures), 32):
        combinations, images = zip(*pictures[start : start + 32], strict=True)
        pixels = processor.preprocess(list(images)).to(vae.dtype)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        restored.extend(zip(combinations, processor.postprocess(decoded, output_type="pil"), strict=True))
    return restored


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[HeldOutPrompt],
    *,
    template: str = "{caption}",
    num_inference_steps: int = NUM_INFERENCE_STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
) -> Pictures:
    """Make one picture for each prompt, as the generation engine does: one at a time, CPU generator from the seed."""
    pipeline.set_progress_bar_config(disable=True)
    return [
        (
            prompt.combination,
            pipeline(
                template.format(caption=plain_caption(prompt.combination)),
                width=PICTURE_SIZE,
                height=PICTURE_SIZE,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                generator=torch.Generator("cpu").manual_seed(prompt.seed),
            ).images[0],
        )
        for prompt in prompts
    ]


def contact_sheet(pictures: Pictures, *, columns: int = 12) -> Image.Image:
    """Lay pictures out column by column; those the judge finds wrong get a frame in magenta."""
    cell = PICTURE_SIZE + 6
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell, rows * cell), (128, 128, 128))
    for index, (combination, image) in enumerate(pictures):
        x, y = index // rows * cell, index % rows * cell
        if not all(judge(image).agrees_with(combination).values()):
            ImageDraw.Draw(sheet).rectangle([x, y, x + cell - 1, y + cell - 1], fill=(255, 0, 255))
        sheet.paste(image, (x + 3, y + 3))
    return sheet
