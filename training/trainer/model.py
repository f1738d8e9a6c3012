"""The base model of a training: what Stable Diffusion 1.x, 2.x and XL do in different ways stands here."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import nn

from training.pipelines.failures import FailureCode, RequestFailed
from training.pipelines.hardware import Hardware, free_cached_memory

PIPELINES = {"StableDiffusionPipeline": False, "StableDiffusionXLPipeline": True}
"""Those that adapters can be trained for, and whether they read with two text encoders and are told sizes."""

PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Texts:
    """What the denoiser reads of captions: captions x tokens x width, and for SDXL the pooled ones, captions x width."""

    sequence: torch.Tensor
    pooled: torch.Tensor | None

    def to(self, device: torch.device) -> "Texts":
        """Return them on a device."""
        pooled = None if self.pooled is None else self.pooled.to(device, non_blocking=True)
        return Texts(self.sequence.to(device, non_blocking=True), pooled)

    @staticmethod
    def stack(texts: Sequence["Texts"]) -> "Texts":
        """Return some as one, in their order."""
        pooled = [text.pooled for text in texts if text.pooled is not None]
        return Texts(torch.cat([text.sequence for text in texts]), torch.cat(pooled) if pooled else None)


class Model:
    """A pipeline whose weights are frozen, taken apart for training."""

    def __init__(self, pipeline: Any, hardware: Hardware) -> None:
        """Take a pipeline that was loaded onto ``hardware``.

        Raises:
            RequestFailed: no adapter can be trained for it (``model_invalid``).
        """
        kind = type(pipeline).__name__
        if kind not in PIPELINES:
            raise _invalid(f"adapters are trained for Stable Diffusion 1, 2 and XL, and this is a {kind}")
        self.pipeline = pipeline
        self.hardware = hardware
        self.unet: Any = pipeline.unet
        self.vae: Any = pipeline.vae
        self.factor: int = pipeline.vae_scale_factor
        """How many pixels one side of a latent stands for."""
        self._is_xl = PIPELINES[kind]
        names = ("text_encoder", "text_encoder_2") if self._is_xl else ("text_encoder",)
        self.text_encoders: dict[str, nn.Module] = {name: getattr(pipeline, name) for name in names}
        if None in self.text_encoders.values():
            raise _invalid("it lacks a text encoder")
        if self.unet.config.in_channels != self.vae.config.latent_channels:
            raise _invalid("it does not draw from noise alone")
        self.schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        if self.schedule.config.prediction_type not in PREDICTIONS:
            raise _invalid(f"it predicts “{self.schedule.config.prediction_type}”")
        for part in (self.unet, self.vae, *self.text_encoders.values()):
            part.requires_grad_(requires_grad=False).eval()

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the frozen weights of the denoiser."""
        return next(weight for weight in self.unet.parameters() if not weight.requires_grad).dtype

    @property
    def timesteps(self) -> int:
        """How many steps of noise there are."""
        return self.schedule.config.num_train_timesteps

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts that an adapter may change, by their names in the pipeline."""
        return {"unet": self.unet, **self.text_encoders}

    def read(self, captions: Sequence[str]) -> Texts:
        """Return what the denoiser reads of captions, exactly as when it draws."""
        options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        answer = self.pipeline.encode_prompt(list(captions), device=self.hardware.device, **options)
        texts = Texts(answer[0], answer[2] if self._is_xl else None)
        if self._is_xl and self.pipeline.config.force_zeros_for_empty_prompt:
            # So SDXL is told when it draws without a prompt, and so it has to learn it.
            is_empty = torch.tensor([not caption for caption in captions], device=texts.sequence.device)
            texts = Texts(
                texts.sequence.masked_fill(is_empty[:, None, None], 0),
                answer[2].masked_fill(is_empty[:, None], 0),
            )
        return texts

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of the latents of pictures, on the scale on which the denoiser works."""
        posterior = self.vae.encode(pixels.to(self.hardware.device, self.vae.dtype)).latent_dist
        config = self.vae.config
        mean, scale = posterior.mean, config.scaling_factor
        if getattr(config, "latents_mean", None) and getattr(config, "latents_std", None):
            shape = 1, -1, 1, 1
            mean = mean - torch.tensor(config.latents_mean, device=mean.device).view(shape)
            scale = scale / torch.tensor(config.latents_std, device=mean.device).view(shape)
        return mean * scale, posterior.std * scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the pictures, from -1 to 1, of latents on that scale, in the number format of the autoencoder."""
        latents = latents.to(self.vae.device, self.vae.dtype)
        config = self.vae.config
        scale: Any = config.scaling_factor
        mean: Any = 0.0
        if getattr(config, "latents_mean", None) and getattr(config, "latents_std", None):
            shape = 1, -1, 1, 1
            mean = latents.new_tensor(config.latents_mean).view(shape)
            scale = scale / latents.new_tensor(config.latents_std).view(shape)
        return self.vae.decode(latents / scale + mean, return_dict=False)[0]

    def predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Texts, conditions: torch.Tensor
    ) -> torch.Tensor:
        """Return what the denoiser says of noisy latents.

        Args:
            noisy: batch x channels x height x width.
            timesteps: how noisy each of them is.
            texts: their captions.
            conditions: batch x 6, see :meth:`training.trainer.examples.Example.conditions`.
        """
        added = {"text_embeds": texts.pooled, "time_ids": conditions} if self._is_xl else None
        return self.unet(noisy, timesteps, texts.sequence, added_cond_kwargs=added, return_dict=False)[0]

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return what the denoiser should say."""
        if self.schedule.config.prediction_type == "epsilon":
            return noise
        return self.schedule.get_velocity(latents, noise, timesteps)

    def fingerprint_of_pictures(self) -> str:
        """Return what tells one way of encoding pictures from another: the autoencoder and its settings."""
        config = {
            name: self.vae.config.get(name) for name in ("scaling_factor", "latents_mean", "latents_std")
        }
        return _fingerprint([self.vae], config)

    def fingerprint_of_texts(self) -> str:
        """Return what tells one way of reading captions from another: encoders, words and their number formats."""
        tokenizers = [self.pipeline.tokenizer, *([self.pipeline.tokenizer_2] if self._is_xl else [])]
        words = [(tokenizer.get_vocab(), tokenizer.model_max_length) for tokenizer in tokenizers]
        zeros = self._is_xl and self.pipeline.config.force_zeros_for_empty_prompt
        return _fingerprint(self.text_encoders.values(), [words, zeros, self._is_xl])

    def rest(self, *parts: nn.Module) -> None:
        """Make room on the device for what is worked with: move parts of the model that are not into main memory."""
        for part in parts:
            part.to("cpu")
        free_cached_memory(self.hardware)

    @contextmanager
    def at_work(self, *parts: nn.Module) -> Iterator[None]:
        """Have parts on the device for as long as the block lasts, and then where they were."""
        before = [next(part.parameters()).device for part in parts]
        for part in parts:
            part.to(self.hardware.device)
        try:
            yield
        finally:
            for part, device in zip(parts, before, strict=True):
                part.to(device)
            free_cached_memory(self.hardware)


def _fingerprint(parts: Any, settings: Any) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for part in parts:
        for name, tensor in part.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            # Torch hands no bytes out of bfloat16, but takes all formats for bytes.
            digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def _invalid(reason: str) -> RequestFailed:
    return RequestFailed(FailureCode.MODEL_INVALID, f"The base model cannot be trained on: {reason}.")
