"""Tiny pipelines, made once a session."""

import pytest
import torch


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory):
    """The folders of a pipeline shaped as SD 1.5 and of one shaped as SDXL."""
    from training.tests.tiny_models import build_sd15, build_sdxl

    root = tmp_path_factory.mktemp("tiny")
    return {"sd15": build_sd15(root / "sd15"), "sdxl": build_sdxl(root / "sdxl")}


@pytest.fixture(scope="module")
def one_thread():
    """Let torch use one thread: two on a busy machine are many times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
