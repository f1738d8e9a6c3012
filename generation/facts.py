"""What a worker that generates tells of itself."""

from typing import Any

from generation.warm_engine import engine_facts
from training.services.loadable import loadable_here


def worker_facts() -> dict[str, Any]:
    """Return the names of the base models that this machine can load, and what its engine keeps in memory."""
    return {"models": loadable_here(), "engine": engine_facts()}
