"""Pictures to latents and captions to what the denoiser reads, each once, through the cache, before the first step."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from training.trainer.caching import Cache, key_of
from training.trainer.examples import Example, pixels
from training.trainer.model import Model, Texts

VERSION = 1
"""Of what is kept in the cache; another one, and everything is encoded anew."""

Report = Callable[[int, int], None]
"""Is told after each one how many are done, and of how many. It may raise what ends the work."""


@dataclass(frozen=True)
class Latents:
    """What the encoder makes of one picture: a normal distribution, channels x height x width."""

    mean: torch.Tensor
    deviation: torch.Tensor


class Encoder:
    """Encodes for one training, and remembers what it had to do for it."""

    def __init__(self, model: Model, cache: Cache, images: Path, dtype: torch.dtype) -> None:
        """Encode with a model.

        Args:
            model: the base model.
            cache: where encoded pictures and captions are kept.
            images: the folder of the pictures, each called by its SHA-256.
            dtype: the number format in which latents are kept.
        """
        self.encoded_images = 0
        self.encoded_captions = 0
        self.used: set[str] = set()
        """The names in the cache of all that this training needs."""
        self._model, self._cache, self._images, self._dtype = model, cache, images, dtype

    @torch.no_grad()
    def latents(
        self, wanted: Collection[tuple[Example, bool]], report: Report
    ) -> dict[tuple[str, bool], Latents]:
        """Return the latents of examples, each with whether it is flipped, by SHA-256 and that.

        One at a time: the last bits would depend on what else is in a batch, and then on who filled the cache.

        Raises:
            RequestFailed: a picture cannot be used (``dataset_invalid``), or the cache cannot be written.
        """
        fingerprint = self._model.fingerprint_of_pictures()
        found: dict[tuple[str, bool], Latents] = {}
        with self._model.at_work(self._model.vae):
            for example, is_flipped in wanted:
                key = key_of(
                    version=VERSION,
                    encoder=fingerprint,
                    picture=example.sha256,
                    box=example.box,
                    bucket=example.bucket,
                    flip=is_flipped,
                    dtype=str(self._dtype),
                )
                self.used.add(key)
                kept = self._cache.get(key)
                if kept is None:
                    picture = pixels(example, self._images, is_flipped=is_flipped)
                    encoded = zip(("mean", "deviation"), self._model.encode(picture[None]), strict=True)
                    kept = {name: tensor[0].to("cpu", self._dtype) for name, tensor in encoded}
                    self._cache.put(key, kept)
                    self.encoded_images += 1
                found[example.sha256, is_flipped] = Latents(**kept)
                report(len(found), len(wanted))
        return found

    @torch.no_grad()
    def texts(self, captions: Sequence[str], report: Report) -> dict[str, Texts]:
        """Return what the denoiser reads of captions, one at a time for the same reason.

        Raises:
            RequestFailed: the cache cannot be written.
        """
        fingerprint = self._model.fingerprint_of_texts()
        found: dict[str, Texts] = {}
        with self._model.at_work(*self._model.text_encoders.values()):
            for caption in captions:
                key = key_of(version=VERSION, encoder=fingerprint, caption=caption)
                self.used.add(key)
                kept = self._cache.get(key)
                if kept is None:
                    texts = self._model.read([caption])
                    kept = {
                        name: tensor.cpu()
                        for name, tensor in (("sequence", texts.sequence), ("pooled", texts.pooled))
                        if tensor is not None
                    }
                    self._cache.put(key, kept)
                    self.encoded_captions += 1
                found[caption] = Texts(kept["sequence"], kept.get("pooled"))
                report(len(found), len(captions))
        return found
