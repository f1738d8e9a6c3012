"""What :mod:`generation.tests.forked_engines` has in memory before it forks: all that engines import sooner or later."""

from training.pipelines.environment import prepare_environment

prepare_environment(1)  # as the engine does, before the libraries read it

import diffusers  # noqa: E402

import generation.engine.starting  # noqa: E402, F401

for name in ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "AutoPipelineForImage2Image"):
    getattr(diffusers, name)  # diffusers imports them when they are asked for
