"""Places under the models root, which rows name by relative paths."""

from pathlib import Path

from imagehub import roots

IMPORTED = "adapters"
"""The folder of adapters that were imported, each named by its content. Nobody else writes there."""
COLLECTED = "loras"
"""The folder of adapters that operators put there themselves."""


def place_of(name: str) -> Path | None:
    """Return the path of a name under the models root, or None when it leads out of it."""
    root = roots.models_root()
    if "\0" in name:
        return None
    path = (root / name).resolve()
    return path if path.is_relative_to(root.resolve()) else None
