"""What is encoded once is not encoded again, and what is on disk is whole."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.pipelines.failures import FailureCode, RequestFailed
from training.trainer import caching
from training.trainer.caching import Cache, key_of

ROOT = Path(__file__).parents[3]


class TestTheSecondTraining:
    def test_encodes_nothing_and_learns_the_same(self, rig):
        options = {"steps": 2, "caption_dropout": 0.2}
        one = rig(**options).train()
        other = rig(name="second", **options).train()

        assert one.finished["encoded_images"] == 5 * 2 + 1  # five that are flipped, too, and one kept apart
        assert one.finished["encoded_captions"] == 6 + 1  # and the empty one
        assert (other.finished["encoded_images"], other.finished["encoded_captions"]) == (0, 0)
        assert other.losses == one.losses

    def test_needs_no_picture_for_it(self, rig):
        rig(steps=1).train()
        second = rig(name="second", steps=1)
        for picture in second.folder.images.iterdir():
            picture.unlink()

        assert second.train().is_finished

    @pytest.mark.parametrize(
        ("changes", "images", "captions"),
        [
            ({"center_crop": False}, 10, 0),  # that which is kept apart is always cropped in the middle
            ({"mixed_precision": "bf16"}, 11, 6),
            ({"rank": 8, "seed": 9, "learning_rate": 0.1}, 0, 0),
        ],
    )
    def test_encodes_what_is_new(self, rig, changes, images, captions):
        rig(steps=1).train()
        # Another crop is another picture only where something is cut off.
        narrow = rig(name="narrow", steps=1)
        entries = tuple(replace(entry, bucket=(32, 24)) for entry in narrow.entries)
        replace(narrow, entries=entries).train()
        second = rig(name="second", steps=1, **changes)
        second = replace(second, entries=entries) if "center_crop" in changes else second

        finished = second.train().finished

        assert (finished["encoded_images"], finished["encoded_captions"]) == (images, captions)

    def test_of_another_model_encodes_all(self, rig):
        rig(steps=1).train()

        finished = rig(name="xl", model="sdxl", steps=1).train().finished

        # The tiny models have different autoencoders: their weights are drawn after those of different denoisers.
        assert (finished["encoded_images"], finished["encoded_captions"]) == (11, 6)


def test_cached_captions_are_what_the_encoder_says(rig):
    result = rig(steps=1).train()
    model, pictures = result.training._model, result.training._pictures

    for caption, kept in pictures._texts.items():
        assert torch.equal(kept.sequence, model.read([caption]).sequence)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b"something else"), "has other content"),
    ],
)
def test_a_picture_that_is_not_as_it_was_is_refused(rig, damage, says):
    rig = rig(steps=1)
    damage(next(rig.folder.images.iterdir()))

    with pytest.raises(RequestFailed, match=says) as failure:
        rig.train()

    assert failure.value.code == FailureCode.DATASET_INVALID
    assert str(rig.root) not in failure.value.detail


class TestFolder:
    TENSORS = {"mean": torch.arange(6.0).view(2, 3)}

    def test_gives_back_what_it_was_given(self, tmp_path):
        cache = Cache(tmp_path)
        cache.put("abc", self.TENSORS)

        assert torch.equal(Cache(tmp_path).get("abc")["mean"], self.TENSORS["mean"])
        assert cache.get("abd") is None

    def test_keeps_no_file_mapped(self, tmp_path):
        cache = Cache(tmp_path)
        cache.put("abc", self.TENSORS)

        kept = cache.get("abc")

        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
        assert kept

    @pytest.mark.parametrize("damage", [b"", b"\0" * 200, b"half"])
    def test_does_not_trust_what_it_cannot_read(self, tmp_path, damage):
        cache = Cache(tmp_path)
        cache.put("abc", self.TENSORS)
        next(tmp_path.glob("ab/*")).write_bytes(damage)

        assert cache.get("abc") is None

    def test_tells_of_a_full_disk(self, tmp_path, monkeypatch):
        def full(*_args, **_options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(caching, "save_file", full)

        with pytest.raises(RequestFailed) as failure:
            Cache(tmp_path).put("abc", self.TENSORS)
        assert failure.value.code == FailureCode.DISK_FULL
        assert not list(tmp_path.glob("*/*"))

    def test_names_differ_where_facts_do(self):
        names = {key_of(box=(0, 0), flip=flip, picture=picture) for flip in (False, True) for picture in "ab"}

        assert len(names) == 4

    def test_lets_go_of_what_was_used_least_recently(self, tmp_path):
        cache = Cache(tmp_path)
        for age, key in enumerate(("aaa", "bbb", "ccc", "ddd")):
            cache.put(key, self.TENSORS)
            os.utime(cache._path(key), (1000 + age, 1000 + age))
        cache.get("aaa")
        size = cache._path("aaa").stat().st_size

        removed = cache.clean(2 * size, keep={"bbb"})

        assert removed == 2
        assert [key for key in ("aaa", "bbb", "ccc", "ddd") if cache.get(key)] == ["aaa", "bbb"]

    def test_sweeps_what_was_never_finished(self, tmp_path):
        (tmp_path / "ab").mkdir()
        old, new = tmp_path / "ab" / ".abc.1.part", tmp_path / "ab" / ".abd.2.part"
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (1000, 1000))

        Cache(tmp_path).clean(10**6)

        assert not old.exists()
        assert new.exists()

    def test_a_writer_that_is_killed_leaves_nothing_half(self, tmp_path):
        program = (
            "import sys, torch; from pathlib import Path; from training.trainer.caching import Cache\n"
            "cache, number = Cache(Path(sys.argv[1])), 0\n"
            "while True:\n"
            "    cache.put(f'{number:064x}', {'mean': torch.ones(200_000)}); number += 1\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT)
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*/*.safetensors"))) < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()

        written = [path.stem for path in tmp_path.glob("*/*.safetensors")]
        assert len(written) >= 20
        assert all(Cache(tmp_path).get(key) is not None for key in written)
