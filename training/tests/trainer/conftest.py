"""Tiny models that are trained in this process, and runs of them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory) -> dict[str, Path]:
    """The folders of pipelines shaped as SD 1.5, the same that predicts v, and SDXL."""
    from training.tests import tiny_models  # torch only where a model is needed

    root = tmp_path_factory.mktemp("tiny-models")
    folders = {"sd15": tiny_models.build_sd15(root / "sd15"), "sdxl": tiny_models.build_sdxl(root / "sdxl")}
    folders["v"] = shutil.copytree(folders["sd15"], root / "v")
    config = folders["v"] / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"}))
    return folders


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: two on a busy machine are many times slower, and add up in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rig(tmp_path, tiny_folders) -> Callable[..., object]:
    """Make a run of the tiny model. Keywords are those of the recipe, and ``model``, ``pictures`` and ``name``."""
    from training.tests.trainer.rig import make_rig, small_recipe

    def make(*, model: str = "sd15", pictures: int = 6, name: str = "run", **recipe):
        architecture = "sdxl" if model == "sdxl" else "sd1"
        return make_rig(
            tmp_path / name,
            tiny_folders[model],
            small_recipe(**recipe),
            pictures=pictures,
            architecture=architecture,
        )

    return make
