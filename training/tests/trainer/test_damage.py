"""Disks that fill up and files that change, met by real trainings: what comes of them is what would have come without."""

import pytest
import torch

from training.pipelines.failures import FailureCode, RequestFailed
from training.trainer import checkpoints
from training.weights import read_header

RECIPE = {"steps": 6, "checkpoint_every": 2, "keep_checkpoints": 9, "validation_every": 2}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def whole(rig):
    """What comes of a training that nothing happens to."""
    return rig(name="whole", **RECIPE).train().weights


@pytest.mark.parametrize("name", ["adapter.safetensors", "state.pt", "manifest.json"])
def test_a_flipped_bit_costs_some_steps_and_no_more(rig, whole, name):
    rig = rig(**RECIPE)
    rig.train()
    file = rig.folder.checkpoints / "step-000006" / name
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)

    second = rig.train()

    assert [warning["code"] for warning in second.of("warning")] == ["checkpoint_damaged"]
    assert second.of("started")[0]["resumed_from"] == 4
    assert_same(second.weights, whole)


@pytest.fixture
def full_disk(monkeypatch):
    """Let nothing be free on the disk from the second checkpoint on, until it is told to be free again."""
    usage, asked = checkpoints.shutil.disk_usage, []

    def disk_usage(path):
        asked.append(path)
        return usage(path)._replace(free=0) if len(asked) > 1 else usage(path)

    def free():
        monkeypatch.setattr(checkpoints.shutil, "disk_usage", usage)

    monkeypatch.setattr(checkpoints.shutil, "disk_usage", disk_usage)
    return free


def test_a_full_disk_ends_it_with_its_checkpoint_whole(rig, whole, full_disk):
    rig = rig(**RECIPE)
    with pytest.raises(RequestFailed) as failure:
        rig.train()
    assert failure.value.code == FailureCode.DISK_FULL
    assert [path.name for path in rig.folder.checkpoints.iterdir()] == ["step-000002"]

    full_disk()
    second = rig.train()

    assert second.of("started")[0]["resumed_from"] == 2
    assert_same(second.weights, whole)


def test_the_latest_the_best_and_the_pinned_stay(rig):
    rig = rig(steps=6, checkpoint_every=1, keep_checkpoints=2, validation_every=1)
    rig.extra["pinned"] = (2,)

    result = rig.train()

    losses = {event["step"]: event["validation_loss"] for event in result.of("checkpoint")}
    best = min(losses, key=losses.get)
    kept = sorted(int(path.name.removeprefix("step-")) for path in rig.folder.checkpoints.iterdir())
    assert kept == sorted({2, 5, 6, best})
    removed = {step for event in result.of("checkpoint") for step in event["removed"]}
    assert removed == set(range(1, 7)) - set(kept)


def test_the_header_tells_when_it_began_however_often_it_went_on(rig):
    rig = rig(steps=4)
    began = rig.train().checkpoint(4).progress["started_at"]

    second = rig.but(steps=9).train()

    said = read_header(second.folder.root / second.finished["file"]).metadata
    assert said["ss_training_started_at"] == str(began)
    assert float(said["ss_training_finished_at"]) > began
    assert (said["ss_steps"], said["ss_epoch"]) == ("9", str(second.of("step")[-1]["epoch"]))
    assert int(said["ss_epoch"]) > 0
