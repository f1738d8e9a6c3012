"""What must stand in the environment before torch, diffusers and transformers are imported."""

import os

QUIET = {
    # A warning about a long prompt quotes the prompt, and logs must not hold prompts.
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare_environment(threads: int) -> None:
    """Silence the libraries, keep them off the network, and bound their threads."""
    os.environ.update(QUIET)
    os.environ["HF_HUB_OFFLINE"] = "1"  # lifted only while a request that may download loads
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["MKL_NUM_THREADS"] = str(threads)
