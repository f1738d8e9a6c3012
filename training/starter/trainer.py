"""Trains the starter model from a seed: first the autoencoder, then denoiser and text encoder together.

Every step draws its lots from a generator seeded with (seed, stage, step). So a resumed training takes exactly
the steps that an undisturbed one would have taken, and no generator state has to be saved.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch.nn import functional

from training.starter import architecture, drawings
from training.starter.captions import late_caption, random_caption
from training.starter.mixed_precision import MixedPrecisionOptimizer, one_thread, plain_attention

logger = logging.getLogger(__name__)

Report = Callable[[str, int, int, float], None]
"""Told the stage, the steps done, the steps in all, and the mean loss since it was last told."""

CaptionOf = Callable[[np.random.Generator, drawings.Combination], str]

# The first entry of each step's seed after the recipe's own: the stages must not share their lots.
_VAE, _PICTURES, _DENOISER, _LATE_CAPTIONS = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what the trained model is."""

    seed: int = 42
    sizes: architecture.Sizes = field(default_factory=architecture.Sizes)

    vae_steps: int = 5000
    vae_batch: int = 16
    vae_learning_rate: float = 1.5e-3
    # Share of training pictures that are scenes of any colors, so that the autoencoder can hold other pictures too.
    scene_share: float = 0.2
    # Weight of the latents' divergence from a unit normal, against the mean absolute error of a pixel (-1 to 1).
    divergence_weight: float = 1e-3

    pictures: int = 20_000
    denoiser_steps: int = 6_000
    denoiser_batch: int = 64
    denoiser_learning_rate: float = 1e-3
    denoiser_hold_share: float = 0.5
    # Colors bind to their nouns after 1,500 steps; from here on the text encoder is frozen, which saves a fifth.
    text_encoder_steps: int = 3_000
    # A last stage in which captions come late in long prompts, and all weights learn at a lower rate.
    late_caption_steps: int = 1_200
    late_caption_learning_rate: float = 4e-4
    # Share of pictures shown with an empty prompt, which is what classifier-free guidance guides away from.
    caption_dropout: float = 0.1

    warmup_steps: int = 200
    ema_decay: float = 0.999
    steps_between_reports: int = 100
    steps_between_saves: int = 500


class OtherRecipe(Exception):
    """The work folder belongs to a training with other settings."""


def train(recipe: Recipe, work_dir: Path, report: Report | None = None) -> StableDiffusionPipeline:
    """Train every part and return the pipeline in float32; what is already done in the work folder is not repeated.

    Raises:
        OtherRecipe: the work folder holds the state of a training with other settings.
    """
    _claim(work_dir, recipe)
    with one_thread(), plain_attention(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        vae = train_vae(recipe, work_dir, report or log_progress)
        return train_denoiser(recipe, vae, work_dir, report or log_progress)


def train_vae(recipe: Recipe, work_dir: Path, report: Report) -> AutoencoderKL:
    """Train the autoencoder to give back drawings, and set its scaling factor so that latents have deviation 1."""
    vae = architecture.build_vae(recipe.sizes)
    optimizer = MixedPrecisionOptimizer(
        vae,
        learning_rate=recipe.vae_learning_rate,
        warmup_steps=recipe.warmup_steps,
        total_steps=recipe.vae_steps,
        ema_decay=recipe.ema_decay,
    )
    combinations = drawings.training_combinations()

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng((recipe.seed, _VAE, step))
        pictures = pixels(
            [
                drawings.random_scene(rng)
                if rng.random() < recipe.scene_share
                else drawings.draw(drawings.random_drawing(rng, combinations))
                for _ in range(recipe.vae_batch)
            ]
        )
        posterior = vae.encode(pictures.bfloat16()).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latents = mean + torch.exp(0.5 * logvar) * _normal(rng, mean.shape)
        restored = vae.decode(latents.bfloat16()).sample.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return functional.l1_loss(restored, pictures) + recipe.divergence_weight * divergence

    _take_steps("autoencoder", recipe, optimizer, loss_of_step, work_dir / "vae.pt", report)
    optimizer.finish()
    latents = encode(vae, _draw_pictures(recipe, 512)[0])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae.eval().requires_grad_(requires_grad=False)


def train_denoiser(
    recipe: Recipe, vae: AutoencoderKL, work_dir: Path, report: Report
) -> StableDiffusionPipeline:
    """Train denoiser and text encoder on latents of captioned drawings, to predict v at every noise level."""
    tokenizer = architecture.build_tokenizer()
    text_encoder = architecture.build_text_encoder(tokenizer, recipe.sizes)
    unet = architecture.build_unet(recipe.sizes)
    pipeline = architecture.build_pipeline(tokenizer, text_encoder, vae, unet)
    pictures, combinations = _draw_pictures(recipe, recipe.pictures)
    logger.info("encoding %d drawings", len(combinations))
    latents = encode(vae, pictures) * vae.config.scaling_factor
    noise_levels = pipeline.scheduler.config.num_train_timesteps

    def loss_of_batch(
        rng: np.random.Generator, caption_of: CaptionOf, *, is_text_trained: bool
    ) -> torch.Tensor:
        chosen = rng.integers(len(combinations), size=recipe.denoiser_batch)
        prompts = [
            "" if rng.random() < recipe.caption_dropout else caption_of(rng, combinations[index])
            for index in chosen
        ]
        tokens = tokenizer(
            prompts,
            padding="max_length",
            max_length=architecture.TEXT_LENGTH,
            truncation=True,
            return_tensors="pt",
        )
        clean = latents[torch.from_numpy(chosen)]
        noise = _normal(rng, clean.shape)
        # One level from each of as many equal slices as the batch has pictures: the loss jumps about less.
        slices = (
            np.arange(recipe.denoiser_batch) + rng.random(recipe.denoiser_batch)
        ) / recipe.denoiser_batch
        timesteps = torch.from_numpy((slices * noise_levels).astype(np.int64))
        noisy = pipeline.scheduler.add_noise(clean, noise, timesteps)
        target = pipeline.scheduler.get_velocity(clean, noise, timesteps)
        with torch.set_grad_enabled(is_text_trained):
            context = text_encoder(tokens.input_ids).last_hidden_state
        predicted = unet(noisy.bfloat16(), timesteps, context).sample.float()
        return functional.mse_loss(predicted, target)

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng((recipe.seed, _DENOISER, step))
        return loss_of_batch(rng, random_caption, is_text_trained=step < recipe.text_encoder_steps)

    def loss_of_late_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng((recipe.seed, _LATE_CAPTIONS, step))
        return loss_of_batch(rng, late_caption, is_text_trained=True)

    optimizer = MixedPrecisionOptimizer(
        text_encoder,
        unet,
        learning_rate=recipe.denoiser_learning_rate,
        warmup_steps=recipe.warmup_steps,
        total_steps=recipe.denoiser_steps,
        ema_decay=recipe.ema_decay,
        hold_share=recipe.denoiser_hold_share,
    )
    _take_steps("denoiser", recipe, optimizer, loss_of_step, work_dir / "denoiser.pt", report)
    optimizer.finish()
    optimizer = MixedPrecisionOptimizer(
        text_encoder,
        unet,
        learning_rate=recipe.late_caption_learning_rate,
        warmup_steps=recipe.warmup_steps,
        total_steps=recipe.late_caption_steps,
        ema_decay=recipe.ema_decay,
    )
    _take_steps("late captions", recipe, optimizer, loss_of_late_step, work_dir / "late_captions.pt", report)
    optimizer.finish()
    text_encoder.eval()
    unet.eval()
    return pipeline


def encode(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Return the unscaled mean latents (n, 4, 8, 8) of pictures (n, 3, 64, 64) from 0 to 255."""
    with torch.inference_mode():
        batches = [
            vae.encode(batch.to(vae.dtype) / 127.5 - 1).latent_dist.mean.float()
            for batch in pictures.split(64)
        ]
    # A copy outside of inference mode: training may record gradients through it.
    return torch.cat(batches).clone()


def pixels(images: list) -> torch.Tensor:
    """Stack RGB pictures as float32 (n, 3, 64, 64) from -1 to 1."""
    return _stack(images).float() / 127.5 - 1


def log_progress(stage: str, steps_done: int, steps_in_all: int, loss: float) -> None:
    """Write progress to the log."""
    logger.info("%s: step %d of %d, loss %.4f", stage, steps_done, steps_in_all, loss)


def _claim(work_dir: Path, recipe: Recipe) -> None:
    """Mark a work folder as belonging to a recipe, so that no state of another one is taken up."""
    work_dir.mkdir(parents=True, exist_ok=True)
    mark, settings = work_dir / "recipe.json", json.dumps(asdict(recipe), indent=2)
    if mark.exists() and mark.read_text(encoding="utf-8") != settings:
        raise OtherRecipe(
            f"{work_dir} holds a training with other settings; name another --work-dir or remove it"
        )
    mark.write_text(settings, encoding="utf-8")


def _take_steps(
    stage: str,
    recipe: Recipe,
    optimizer: MixedPrecisionOptimizer,
    loss_of_step: Callable[[int], torch.Tensor],
    state: Path,
    report: Report,
) -> None:
    """Train from where the state file stands to the last step, saving on the way."""
    optimizer.resume(state)
    losses: list[float] = []
    while optimizer.step_count < optimizer.total_steps:
        loss = loss_of_step(optimizer.step_count)
        optimizer.step(loss)
        losses.append(loss.item())
        done = optimizer.step_count
        if done % recipe.steps_between_reports == 0 or done == optimizer.total_steps:
            report(stage, done, optimizer.total_steps, float(np.mean(losses)))
            losses.clear()
        if done % recipe.steps_between_saves == 0 or done == optimizer.total_steps:
            optimizer.save(state)


def _draw_pictures(recipe: Recipe, count: int) -> tuple[torch.Tensor, list[drawings.Combination]]:
    """Draw training pictures, uint8 (count, 3, 64, 64), and what each shows."""
    rng = np.random.default_rng((recipe.seed, _PICTURES))
    combinations = drawings.training_combinations()
    drawn = [drawings.random_drawing(rng, combinations) for _ in range(count)]
    return _stack([drawings.draw(drawing) for drawing in drawn]), [drawing.combination for drawing in drawn]


def _stack(images: list) -> torch.Tensor:
    return (
        torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()
    )


def _normal(rng: np.random.Generator, shape: torch.Size) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
