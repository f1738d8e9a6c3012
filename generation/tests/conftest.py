"""Models for the tests of generation: small, real, and made once a session."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rest_framework.test import APIClient

from generation.warm_engine import stop_engine
from imagehub.accounts.tests.factories import UserFactory
from imagehub.roots import models_root
from training.models import BaseModel


@pytest.fixture(scope="session")
def tiny_sd15(tmp_path_factory) -> Path:
    from training.tests.tiny_models import build_sd15  # torch only where a model is needed

    return build_sd15(tmp_path_factory.mktemp("tiny") / "sd15")


@pytest.fixture(scope="session")
def folders(tiny_sd15, tmp_path_factory) -> dict[str, Path]:
    """The folders of a pipeline shaped as SD 1.5 and of one shaped as SDXL."""
    from training.tests.tiny_models import build_sdxl

    return {"sd15": tiny_sd15, "sdxl": build_sdxl(tmp_path_factory.mktemp("tiny") / "sdxl")}


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch use one thread: two on a busy machine are many times slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def staff(db) -> APIClient:
    """A client of the API that acts for one of the staff."""
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    return client


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
