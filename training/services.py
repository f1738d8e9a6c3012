"""Where the weights of base models are."""

from pathlib import Path
from typing import Any

from imagehub import roots
from imagehub.config import get_config
from imagehub.errors import NotReady
from training.models import BaseModel
from training.starter import MODEL_DIR

BUNDLED = {"starter": MODEL_DIR}


class ModelMissing(NotReady):
    code = "model_missing"
    title = "The weights of the base model are not on this machine"


def locate_base_model(model: BaseModel) -> dict[str, Any]:
    """Return what a child program needs to load a model: its ``kind``, ``source`` and ``allow_download``.

    Raises:
        ModelMissing: a local model whose weights are not there, or lie outside the models root.
    """
    if model.kind == BaseModel.Kind.HUB:
        return {"kind": "hub", "source": model.source, "allow_download": get_config().engine.allow_downloads}
    if model.kind == BaseModel.Kind.BUNDLED:
        path = BUNDLED.get(model.source)
    else:
        path = _contained(roots.models_root(), model.source)
    if path is None or not path.exists():
        raise ModelMissing(f"The weights of the base model “{model}” are not on this machine.")
    is_file = path.is_file()  # its tokenizer and configuration may have to come from the hub
    return {
        "kind": "file" if is_file else "folder",
        "source": str(path),
        "allow_download": is_file and get_config().engine.allow_downloads,
    }


def _contained(root: Path, name: str) -> Path | None:
    """Return the path of a name under a root, or None when it leads out of it."""
    path = (root / name).resolve()
    return path if path.is_relative_to(root.resolve()) else None
