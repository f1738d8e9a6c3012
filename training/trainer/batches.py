"""The pictures of a training in memory, encoded, and the batches made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from training.recipe import Recipe
from training.trainer.chance import draw, fixed_noise
from training.trainer.encoding import Latents
from training.trainer.examples import Example
from training.trainer.model import Model, Texts


@dataclass(frozen=True)
class Batch:
    """What the model needs to be tested on some pictures, on its device, and what it should say."""

    noisy: torch.Tensor
    timesteps: torch.Tensor
    texts: Texts
    conditions: torch.Tensor
    target: torch.Tensor

    def part(self, start: int, end: int) -> "Batch":
        """Return some of its pictures."""
        pooled = self.texts.pooled
        return Batch(
            self.noisy[start:end],
            self.timesteps[start:end],
            Texts(self.texts.sequence[start:end], None if pooled is None else pooled[start:end]),
            self.conditions[start:end],
            self.target[start:end],
        )


class Pictures:
    """The encoded pictures and captions of a training. All of it is in main memory: a tenth of a MB for one of 512 px."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        latents: Mapping[tuple[str, bool], Latents],
        texts: Mapping[str, Texts] | None,
    ) -> None:
        """Keep what was encoded; ``texts`` None: captions are read anew each time, as the encoders are trained."""
        self._model, self._recipe, self._latents, self._texts = model, recipe, latents, texts

    def training_batch(self, examples: Sequence[Example], numbers: Sequence[int]) -> Batch:
        """Return a batch to learn from. ``numbers``: which showing of the training each of them is."""
        recipe = self._recipe
        latents, noise, timesteps, captions, conditions = [], [], [], [], []
        for example, number in zip(examples, numbers, strict=True):
            shape = self._latents[example.sha256, False].mean.shape
            drawn = draw(
                recipe.seed,
                number,
                shape,
                timesteps=self._model.timesteps,
                noise_offset=recipe.noise_offset,
            )
            is_flipped = recipe.random_flip and drawn.flip < 0.5
            kept = self._latents[example.sha256, is_flipped]
            latents.append(kept.mean.float() + kept.deviation.float() * drawn.posterior)
            noise.append(drawn.noise)
            timesteps.append(drawn.timestep)
            captions.append("" if drawn.caption < recipe.caption_dropout else example.caption)
            conditions.append(example.conditions(is_flipped=is_flipped))
        return self._batch(latents, noise, timesteps, captions, conditions)

    def validation_batch(self, example: Example, timesteps: Sequence[int]) -> Batch:
        """Return one picture with fixed noise at some timesteps: always the same, whatever the recipe draws."""
        latents = self._latents[example.sha256, False].mean.float()
        noise = [fixed_noise(example.sha256, index, latents.shape) for index in range(len(timesteps))]
        count = len(timesteps)
        conditions = example.conditions(is_flipped=False)
        return self._batch(
            [latents] * count, noise, timesteps, [example.caption] * count, [conditions] * count
        )

    def _batch(
        self,
        latents: Sequence[torch.Tensor],
        noise: Sequence[torch.Tensor],
        timesteps: Sequence[int],
        captions: Sequence[str],
        conditions: Sequence[tuple[int, ...]],
    ) -> Batch:
        model, device = self._model, self._model.hardware.device
        clean, drawn = (torch.stack(list(many)).to(device, non_blocking=True) for many in (latents, noise))
        when = torch.tensor(timesteps, device=device)
        texts = (
            model.read(captions)
            if self._texts is None
            else Texts.stack([self._texts[caption] for caption in captions]).to(device)
        )
        return Batch(
            noisy=model.schedule.add_noise(clean, drawn, when),
            timesteps=when,
            texts=texts,
            conditions=torch.tensor(conditions, dtype=torch.float32, device=device),
            target=model.target(clean, drawn, when),
        )
