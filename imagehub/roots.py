"""The folders that ImageHub writes to. The environment goes before ``config.yaml``, and that before ``IMAGEHUB_VAR``.

They are looked up at each use, so that a change of the file holds for whoever comes next.
"""

from pathlib import Path
from typing import Literal, get_args

from django.conf import settings

from imagehub.config import get_config

Root = Literal["media", "models", "training", "scraping"]


def media_root() -> Path:
    """Pictures, thumbnails and what jobs stage."""
    return root("media")


def models_root() -> Path:
    """Weights of base models."""
    return root("models")


def training_root() -> Path:
    """Datasets, checkpoints and adapters."""
    return root("training")


def scraping_root() -> Path:
    """What crawls fetch before it is taken in."""
    return root("scraping")


def logs_root() -> Path:
    """Logs of child programs."""
    return Path(settings.VAR_DIR) / "logs"


def every_root() -> dict[str, Path]:
    """Return where all that the system writes lies: the managed roots, and ``IMAGEHUB_VAR`` as ``var``."""
    return {name: root(name) for name in get_args(Root)} | {"var": Path(settings.VAR_DIR)}


def root(name: Root) -> Path:
    """Return where a root lies now."""
    named = settings.NAMED_ROOTS.get(name) or getattr(get_config().paths, name)
    return Path(named) if named else Path(settings.VAR_DIR) / name
