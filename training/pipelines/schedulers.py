"""Noise schedulers by the names people know, made afresh for every picture.

The web process reads the names from here, so diffusers is looked up only when one is made.
"""

import copy
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.pipelines.failures import FailureCode, RequestFailed

MAX_STEPS = 1000


@dataclass(frozen=True)
class SchedulerChoice:
    """A diffusers class, and what it takes beyond the model's own scheduler configuration."""

    class_name: str
    extra: Mapping[str, Any] = field(default_factory=dict)


# Karras sigmas are switched off by name as well: a model's own configuration may have them on.
_DPM = {"algorithm_type": "dpmsolver++", "use_karras_sigmas": False}
_DPM_SDE = {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": False}

SCHEDULERS: Mapping[str, SchedulerChoice] = {
    "ddim": SchedulerChoice("DDIMScheduler"),
    "ddpm": SchedulerChoice("DDPMScheduler"),
    "deis": SchedulerChoice("DEISMultistepScheduler"),
    "dpm2": SchedulerChoice("KDPM2DiscreteScheduler", {"use_karras_sigmas": False}),
    "dpm2_a": SchedulerChoice("KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": False}),
    "dpmpp_2m": SchedulerChoice("DPMSolverMultistepScheduler", _DPM),
    "dpmpp_2m_karras": SchedulerChoice("DPMSolverMultistepScheduler", _DPM | {"use_karras_sigmas": True}),
    "dpmpp_2m_sde": SchedulerChoice("DPMSolverMultistepScheduler", _DPM_SDE),
    "dpmpp_2m_sde_karras": SchedulerChoice(
        "DPMSolverMultistepScheduler", _DPM_SDE | {"use_karras_sigmas": True}
    ),
    "euler": SchedulerChoice("EulerDiscreteScheduler", {"use_karras_sigmas": False}),
    "euler_a": SchedulerChoice("EulerAncestralDiscreteScheduler"),
    "euler_karras": SchedulerChoice("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "heun": SchedulerChoice("HeunDiscreteScheduler", {"use_karras_sigmas": False}),
    "lcm": SchedulerChoice("LCMScheduler"),
    "pndm": SchedulerChoice("PNDMScheduler"),
    "unipc": SchedulerChoice("UniPCMultistepScheduler"),
}

MIN_STEPS = {"PNDMScheduler": 4}
"""Its four-point method looks back three steps; diffusers fails in the middle with fewer."""

MAX_STEPS_OF = {"LCMScheduler": 49}
"""It picks its steps out of a short, distilled schedule of 50; Stable Diffusion's offset takes the last away."""


def actual_steps(steps: int, strength: float | None) -> int:
    """Return how many of its steps a picture that starts from another one really makes, as diffusers counts them."""
    return steps if strength is None else min(int(steps * strength), steps)


def problem_with(name: str | None, *, steps: int, strength: float | None = None) -> tuple[str, str] | None:
    """Return the field that keeps a scheduler from working and a sentence, or None. Needs neither torch nor a model.

    Args:
        name: one of ``SCHEDULERS``; None is the model's own, of which less is known beforehand.
        steps: denoising steps asked for.
        strength: of image-to-image, from 0 to 1.
    """
    if name and name not in SCHEDULERS:
        return "scheduler", "There is no such scheduler."
    kind = SCHEDULERS[name].class_name if name else ""
    low, high = MIN_STEPS.get(kind, 1), MAX_STEPS_OF.get(kind, MAX_STEPS)
    if not low <= steps <= high:
        return "steps", f"The scheduler {name or 'of the model'} works with {low} to {high} steps."
    if actual_steps(steps, strength) < 1:
        return "strength", "The strength times the steps must be at least 1, or nothing would be made anew."
    return None


def make_scheduler(name: str | None, own: Any, *, steps: int, strength: float | None = None) -> Any:
    """Return a new scheduler of that name for a model whose own scheduler is ``own``.

    None means the model's own. ``own`` is copied, never used itself, so that one picture leaves
    nothing behind for the next.

    Raises:
        RequestFailed: nobody knows the name or it does not suit the model (``unknown_scheduler``),
            or it cannot work in that many steps (``bad_request``).
    """
    scheduler = copy.deepcopy(own) if name is None else _make_named(name, own)
    _check_steps(scheduler, name or "The model's own scheduler", steps)
    if problem := problem_with(name, steps=steps, strength=strength):
        raise RequestFailed(FailureCode.BAD_REQUEST, problem[1])
    return scheduler


def _make_named(name: str, own: Any) -> Any:
    choice = SCHEDULERS.get(name)
    if choice is None:
        raise RequestFailed(
            FailureCode.UNKNOWN_SCHEDULER,
            f"There is no scheduler of that name; the names are {', '.join(SCHEDULERS)}.",
        )
    if type(own).__name__.startswith("FlowMatch"):
        # These models predict a velocity along a straight line, which none of the others solves.
        raise RequestFailed(
            FailureCode.UNKNOWN_SCHEDULER, "This model works with its own scheduler only; name none."
        )
    scheduler_class = getattr(importlib.import_module("diffusers"), choice.class_name)
    return scheduler_class.from_config(own.config, **choice.extra)


def _check_steps(scheduler: Any, label: str, steps: int) -> None:
    kind = type(scheduler).__name__
    low = MIN_STEPS.get(kind, 1)
    # LCM picks its steps out of a short, distilled schedule; the others out of the training steps.
    limit = "original_inference_steps" if kind == "LCMScheduler" else "num_train_timesteps"
    # An offset shifts every step; without it, the last would fall behind the end of the training steps.
    high = scheduler.config.get(limit, MAX_STEPS) - scheduler.config.get("steps_offset", 0)
    if not low <= steps <= high:
        raise RequestFailed(
            FailureCode.BAD_REQUEST, f"{label} works with {low} to {high} steps, not with {steps}."
        )
