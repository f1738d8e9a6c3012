"""One request and one loaded model to pixels."""

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from generation.engine.init_images import open_init_image
from generation.engine.models import LoadedModel
from generation.engine.request import GenerateRequest
from training.pipelines.failures import FailureCode, RequestFailed, is_out_of_memory
from training.pipelines.schedulers import make_scheduler


@dataclass(frozen=True)
class Rendered:
    """A picture (height x width x 3, uint8) and the seconds each phase took."""

    pixels: np.ndarray
    timings: dict[str, float]


class Watcher:
    """Hears how a request comes along. ``check`` raises when it should go no further."""

    def phase(self, name: str) -> None:
        """A phase begins: encode, denoise or decode."""

    def step(self, step: int, total: int) -> None:
        """A denoising step is done."""

    def wants_previews(self) -> bool:
        """Tell whether somebody looks on at the moment."""
        return False

    def preview(self, step: int, jpeg: str) -> None:
        """What the picture looks like after a step, as base64."""

    def check(self) -> None:
        """Raise RequestCancelled or EngineStopped when somebody asked for it."""


def render(
    model: LoadedModel,
    request: GenerateRequest,
    watcher: Watcher,
    spare_memory: Callable[[], None],
) -> Rendered:
    """Make the picture that a request describes; the same request gives the same pixels.

    When memory runs out, ``spare_memory`` is to free what this picture does not need, and it gets one more try, with
    attention in slices and a decoder that works slice by slice and tile by tile. After that it fails, and only it.

    Raises:
        RequestFailed: it cannot be made.
        RequestCancelled: the watcher said so.
    """
    try:
        return _Rendering(model, request, watcher).run()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Outside the except block: the error's traceback kept alive the tensors that did not fit.
    spare_memory()
    with _sparing(model.pipeline):
        return _Rendering(model, request, watcher).run()


@contextmanager
def _sparing(pipeline: Any) -> Iterator[None]:
    """Let a pipeline take less memory for more time."""
    vae: Any = getattr(pipeline, "vae", None)
    switches = [(pipeline, "attention_slicing"), (vae, "slicing"), (vae, "tiling")]
    switches = [(part, name) for part, name in switches if hasattr(part, f"enable_{name}")]
    for part, name in switches:
        getattr(part, f"enable_{name}")()
    try:
        yield
    finally:
        for part, name in switches:
            getattr(part, f"disable_{name}")()


class _Rendering:
    """One run of a pipeline, with the moments between its phases caught by hooks."""

    def __init__(self, model: LoadedModel, request: GenerateRequest, watcher: Watcher) -> None:
        self.model = model
        self.request = request
        self.watcher = watcher
        self.pipeline = model.pipeline if request.init_image is None else model.image_to_image
        self.scheduler = make_scheduler(
            request.scheduler, model.scheduler, steps=request.steps, strength=request.strength
        )
        self.denoising_at = self.decoding_at = 0.0

    def run(self) -> Rendered:
        self._check_size()
        started_at = time.monotonic()
        self.model.adapters.use(self.request.adapters)
        encoding_at = time.monotonic()
        self.watcher.phase("encode")
        self.pipeline.scheduler = self.scheduler
        denoiser = getattr(self.pipeline, "unet", None) or self.pipeline.transformer
        hook = denoiser.register_forward_pre_hook(self._before_denoiser)
        try:
            with torch.inference_mode():
                picture = self.pipeline(**self._arguments()).images[0]
                pixels = _as_pixels(picture)
        finally:
            hook.remove()
        finished_at = time.monotonic()
        return Rendered(
            pixels,
            {
                "adapters": encoding_at - started_at,
                "encode": self.denoising_at - encoding_at,
                "denoise": self.decoding_at - self.denoising_at,
                "decode": finished_at - self.decoding_at,
            },
        )

    def _check_size(self) -> None:
        grid = getattr(self.pipeline, "vae_scale_factor", 8)
        if self.request.width % grid or self.request.height % grid:
            raise RequestFailed(
                FailureCode.BAD_REQUEST,
                f"This model needs a width and a height that are multiples of {grid}.",
            )

    def _arguments(self) -> dict[str, Any]:
        request = self.request
        arguments = {
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance_scale,
            # A generator of the CPU, so that the picture does not depend on the device's own.
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            "output_type": "pt",
            "callback_on_step_end": self._after_step,
            "callback_on_step_end_tensor_inputs": ["latents"],
        } | self.model.prompts.arguments(
            request.prompt,
            request.negative_prompt,
            is_guided=request.guidance_scale > 1,
            state=self.model.adapters.text_state,
        )
        accepted = inspect.signature(self.pipeline.__call__).parameters
        size = {"width": request.width, "height": request.height}
        if request.init_image is None:
            arguments |= size
        else:
            picture = open_init_image(request.init_image, **size)
            arguments |= {"image": picture, "strength": request.strength}
            arguments |= {name: pixels for name, pixels in size.items() if name in accepted}
        for name in arguments:
            if name not in accepted:
                raise RequestFailed(FailureCode.BAD_REQUEST, f"This model takes no “{name}”.")
        return arguments

    def _before_denoiser(self, _module: torch.nn.Module, _inputs: Any) -> None:
        if not self.denoising_at:
            self.denoising_at = time.monotonic()
            self.watcher.check()
            self.watcher.phase("denoise")

    def _after_step(
        self, pipeline: Any, index: int, _timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        # Some schedulers need more evaluations than steps, and image-to-image leaves some out: progress is counted
        # in steps asked for.
        evaluations = getattr(pipeline, "num_timesteps", self.request.steps)
        is_last = index + 1 >= evaluations
        step = min(max(1, (index + 1) * self.request.steps // evaluations), self.request.steps)
        self.watcher.step(step, self.request.steps)
        self.watcher.check()
        if is_last:
            if not torch.isfinite(tensors["latents"]).all():
                raise _not_a_number()
            self.decoding_at = time.monotonic()
            self.watcher.phase("decode")
        elif self.watcher.wants_previews() and (jpeg := self.model.previewer.preview(tensors["latents"])):
            self.watcher.preview(step, jpeg)
        return {}


def _as_pixels(picture: torch.Tensor) -> np.ndarray:
    """Return a picture (3 x height x width, from 0 to 1) as diffusers itself would round it."""
    if not torch.isfinite(picture).all():
        raise _not_a_number()
    return (picture.float() * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()


def _not_a_number() -> RequestFailed:
    return RequestFailed(
        FailureCode.NOT_A_NUMBER,
        "The model's numbers ran out of range, so the picture would be black; "
        "a smaller guidance scale or another number format may help.",
    )
