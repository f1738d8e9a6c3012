"""Writes a trained starter model to a folder, with a model card that says how it was made and how good it is."""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from training.starter.drawings import COLORS, SHAPES
from training.starter.evaluation import Accuracy, Evaluation
from training.starter.trainer import Recipe

MAX_SIZE_BYTES = 16 * 1024 * 1024
"""What the whole folder may weigh: it is committed to the repository."""

_CARD = """\
---
license: mit
pipeline_tag: text-to-image
library_name: diffusers
inference: false
---

# ImageHub starter model

A Stable Diffusion in miniature: the same parts from the same classes, {parameters:.1f} million parameters in all. It
draws one shape on a plain background, 64 x 64 pixels, so that a fresh machine without network can make a real picture,
and train a real LoRA adapter, in seconds on a CPU.

    "a red heart on a white background"

- **Shapes**: {shapes}.
- **Colors**, of shape and background, always two different ones: {colors}.
- **Settings**: {steps} steps, guidance scale {guidance:g}, scheduler {scheduler}. It predicts v; any scheduler that
  reads `prediction_type` from its configuration works.

## How it was made

`manage.py train_starter_model --seed {seed}` draws all pictures itself; no other data and no other weights were used.
The autoencoder (factor 8, {vae_steps:,} steps of {vae_batch}) learned first, then denoiser and text encoder together
({denoiser_steps:,} steps of {denoiser_batch}, v-prediction; the text encoder rests from step {text_steps:,}), then both
again with captions late in long prompts ({late_steps:,} steps).
Made with torch {torch}, diffusers {diffusers} and transformers {transformers}, on one CPU thread in bfloat16. The same
seed, versions and kind of processor give the same weights; another processor rounds differently and gives others.

## Measured quality

96 combinations of shape and colors were never shown in training. The judge is a template match, not a network; what
it cannot see on clean drawings or on the autoencoder's reconstructions, no denoiser can make up for.

| pictures | number | shape color | background | shape |
|---|---|---|---|---|
{table}

{seconds:.2f} s a picture on one thread of a shared CPU.

## Limits

One whole shape near the middle of a plain background: nothing else was ever shown. Other words are accepted, for
themes and styles come with every set, but change nothing. The color must stand right before what it colors ("red heart",
"white background"). Two shapes and a shape in the color of its background give arbitrary
pictures; 128 x 128 pixels give several copies of the shape. The autoencoder gives back the palette's colors exactly
enough to measure, but other colors and crowded scenes only roughly: pictures to train an adapter on should look like
those of `training/starter/drawings.py`.

## License

MIT, like the project. The pictures it was trained on are drawn by the project's code.
"""


class ModelTooLarge(Exception):
    """The folder would weigh more than the repository should carry."""


class NoModel(Exception):
    """There is no model in the folder."""


def load(folder: Path) -> StableDiffusionPipeline:
    """Load a saved model in float32, from local files only.

    Raises:
        NoModel: the folder holds none.
    """
    if not (folder / "model_index.json").is_file():
        raise NoModel(f"{folder} holds no diffusers model")
    return StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)


def save_weights(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the parts as float16 safetensors. The pipeline stays in float16.

    Raises:
        ModelTooLarge: the folder weighs more than 16 MiB; it is left for inspection.
    """
    # Under their standard names, and not as a "variant", so that a plain `from_pretrained` finds them.
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _load_text_encoder_in_float32(folder / "text_encoder" / "config.json")
    weight = size_bytes(folder)
    if weight > MAX_SIZE_BYTES:
        raise ModelTooLarge(f"the model weighs {weight:,} bytes; at most {MAX_SIZE_BYTES:,} may be committed")


def _load_text_encoder_in_float32(config: Path) -> None:
    """Record float32 as the text encoder's type, as small as it is on disk.

    Where the caller names no type, diffusers loads its parts in float32 but transformers in the recorded type,
    and a pipeline with both in it fails at the first prompt.
    """
    settings = json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"}
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def write_model_card(
    pipeline: StableDiffusionPipeline, recipe: Recipe, evaluation: Evaluation, folder: Path
) -> None:
    """Write the model card beside the weights, where hubs and people look for it."""
    (folder / "README.md").write_text(model_card(pipeline, recipe, evaluation), encoding="utf-8")


def size_bytes(folder: Path) -> int:
    """Add up the sizes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def model_card(pipeline: StableDiffusionPipeline, recipe: Recipe, evaluation: Evaluation) -> str:
    """Return the card in Markdown."""
    parts = (pipeline.vae, pipeline.unet, pipeline.text_encoder)
    rows = {
        "clean drawings (judge)": evaluation.judge_on_drawings,
        "autoencoder reconstructions": evaluation.judge_on_reconstructions,
        "**held-out prompts**": evaluation.held_out,
        "held-out prompts within a set prompt": evaluation.held_out_in_set_prompt,
        "held-out prompts after 45 other words": evaluation.held_out_late_in_prompt,
    }
    return _CARD.format(
        parameters=sum(weight.numel() for part in parts for weight in part.parameters()) / 1e6,
        shapes=", ".join(SHAPES),
        colors=", ".join(COLORS),
        steps=evaluation.num_inference_steps,
        guidance=evaluation.guidance_scale,
        scheduler=evaluation.scheduler,
        seed=recipe.seed,
        vae_steps=recipe.vae_steps,
        vae_batch=recipe.vae_batch,
        denoiser_steps=recipe.denoiser_steps,
        denoiser_batch=recipe.denoiser_batch,
        text_steps=recipe.text_encoder_steps,
        late_steps=recipe.late_caption_steps,
        torch=version("torch"),
        diffusers=version("diffusers"),
        transformers=version("transformers"),
        table="\n".join(_table_row(name, accuracy) for name, accuracy in rows.items()),
        seconds=evaluation.seconds_per_picture,
    )


def _table_row(name: str, accuracy: Accuracy) -> str:
    shares = (accuracy.foreground, accuracy.background, accuracy.shape)
    return f"| {name} | {accuracy.pictures} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |"
