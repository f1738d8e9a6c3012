"""Models for the tests of generation: small, real, and made once a session."""

import shutil
from pathlib import Path

import pytest

from generation.warm_engine import stop_engine
from imagehub.roots import models_root
from training.models import BaseModel


@pytest.fixture(scope="session")
def tiny_sd15(tmp_path_factory) -> Path:
    from generation.tests.tiny_models import build_sd15  # torch only where a model is needed

    return build_sd15(tmp_path_factory.mktemp("tiny") / "sd15")


@pytest.fixture
def tiny_model(db, tiny_sd15, settings) -> BaseModel:
    """A base model row whose weights lie under the models root."""
    shutil.copytree(tiny_sd15, models_root() / "tiny")
    return BaseModel.objects.create(
        name="tiny",
        kind=BaseModel.Kind.FOLDER,
        source="tiny",
        default_width=64,
        default_height=64,
        default_steps=2,
    )


@pytest.fixture(scope="session", autouse=True)
def _engine_ends():
    """One engine serves the whole session, as one serves a worker."""
    yield
    stop_engine()
