import errno
import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from generation.engine.saving import save_png
from training.pipelines.failures import FailureCode, RequestFailed

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)


@pytest.fixture
def staging(tmp_path):
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


def test_writes_the_pixels_and_says_what_it_wrote(staging):
    output = staging / "picture.png"

    saved = save_png(PIXELS, output, {})

    with Image.open(output) as picture:
        assert picture.size == (32, 64)
        assert np.array_equal(np.asarray(picture), PIXELS)
    assert saved.size_bytes == output.stat().st_size
    assert saved.sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
    assert list(staging.iterdir()) == [output]


def test_embeds_text_in_any_language(staging):
    output = staging / "picture.png"
    text = {"parameters": "a cat\nSteps: 4, café", "imagehub": '{"prompt": "猫 ♥"}'}

    save_png(PIXELS, output, text)

    with Image.open(output) as picture:
        assert picture.text == text
    content = output.read_bytes()
    assert b"tEXtparameters" in content
    assert b"iTXtimagehub" in content


def test_names_a_full_disk_and_leaves_nothing(staging, monkeypatch):
    output = staging / "picture.png"
    output.write_bytes(b"an earlier picture")

    def no_space(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)

    with pytest.raises(RequestFailed) as caught:
        save_png(PIXELS, output, {})

    assert caught.value.code == FailureCode.DISK_FULL
    assert output.read_bytes() == b"an earlier picture"
    assert list(staging.iterdir()) == [output]


@pytest.mark.parametrize("place", ["missing/picture.png", "folder"])
def test_names_a_place_that_cannot_be_written(staging, place):
    (staging / "folder").mkdir()

    with pytest.raises(RequestFailed) as caught:
        save_png(PIXELS, staging / place, {})

    assert caught.value.code == FailureCode.STORAGE_ERROR
    assert str(staging) not in caught.value.detail
    assert list(staging.iterdir()) == [staging / "folder"]
