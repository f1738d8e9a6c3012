"""From options to a running server."""

import argparse
import gc
import logging
import os
import platform
from importlib.metadata import version

from generation.engine.models import ModelCache
from generation.engine.server import Server
from generation.engine.stacks import Limits
from imagehub.jobs.protocol import Channel, ExitCode
from training.pipelines.failures import RequestFailed
from training.pipelines.hardware import choose_hardware, set_threads

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors")


def serve(options: argparse.Namespace, channel: Channel | None = None) -> ExitCode:
    """Announce that the engine is ready and answer requests until the end."""
    try:
        hardware = choose_hardware(options.device, options.dtype)
    except RequestFailed as failure:
        logger.error("%s", failure.detail)
        return ExitCode.BAD_REQUEST
    set_threads(options.threads)
    # What the imports left behind lives as long as the process: full collections need not walk it.
    gc.collect()
    gc.freeze()
    channel = channel or Channel.from_environment()
    models = ModelCache(
        hardware,
        options.models,
        budget_bytes=options.model_memory,
        adapters=Limits(options.adapters, options.adapter_memory),
    )
    return Server(channel, models).serve(
        pid=os.getpid(),
        device=hardware.device.type,
        dtype=hardware.dtype_name,
        threads=options.threads,
        capacity=models.capacity,
        versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    )
