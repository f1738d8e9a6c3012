"""Checkpoints are whole or not there; what is damaged is found out, and never costs a good one."""

import errno
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from training.pipelines.failures import FailureCode, RequestFailed
from training.tests.formats.runs import checkpoints_of, entries, make_run
from training.trainer import checkpoints, writing
from training.trainer.checkpoint_files import folder_name, verify
from training.trainer.checkpoints import Checkpoints, Origin

ROOT = Path(__file__).parents[3]
FILES = ["adapter.safetensors", "state.pt", "manifest.json"]


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def store(run):
    return checkpoints_of(run)


def save(store, step, *, loss=None, fill=None, size=64):
    value = float(step if fill is None else fill)
    weights = {"unet.mid.to_q.lora_A.weight": torch.full((2, size), value)}
    optimizer = {"state": {0: {"step": torch.tensor(value), "exp_avg": torch.ones(2, size) * value}}}
    return store.save(
        step,
        weights=weights,
        state={"optimizer": optimizer, "schedule": {"last_epoch": step}},
        progress={"epoch": 2, "loss_ema": 0.5},
        validation_loss=loss,
    )


def folders(run):
    return sorted(path.name for path in run.checkpoints.iterdir())


def flip(path, position=None):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 if position is None else position] ^= 0x10
    path.write_bytes(raw)


def test_what_was_saved_comes_back(store):
    saved = save(store, 10, loss=0.25)

    found, damaged = store.newest()

    assert (found, damaged) == (saved, [])
    assert (found.step, found.validation_loss, found.progress["loss_ema"]) == (10, 0.25, 0.5)
    assert found.size_bytes == sum(file.stat().st_size for file in found.folder.iterdir())
    assert torch.equal(
        checkpoints.load_weights(found)["unet.mid.to_q.lora_A.weight"], torch.full((2, 64), 10.0)
    )
    state = checkpoints.load_state(found)
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], torch.full((2, 64), 10.0))
    assert state["schedule"] == {"last_epoch": 10}


def test_weights_are_kept_in_single_precision(store):
    weights = {"unet.mid.to_q.lora_A.weight": torch.tensor([[0.1]], dtype=torch.bfloat16)}

    saved = store.save(1, weights=weights, state={})

    assert checkpoints.load_weights(saved)["unet.mid.to_q.lora_A.weight"].dtype == torch.float32


def test_there_is_none_at_first(store):
    assert store.newest() == (None, [])
    assert store.prune(keep=1) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["first byte", "middle", "last byte"])
def test_a_flipped_bit_leads_back_to_the_one_before_and_is_told(run, store, name, place):
    save(store, 10)
    file = save(store, 20).folder / name
    flip(file, {"first byte": 0, "middle": None, "last byte": -1}[place])

    found, damaged = store.newest()

    assert (found.step, damaged) == (10, [20])


def test_every_byte_of_a_manifest_counts(store):
    folder = save(store, 10, loss=0.5).folder
    whole = (folder / "manifest.json").read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x01
        (folder / "manifest.json").write_bytes(changed)
        assert store.newest() == (None, [10]), position


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_short_is_damage(store, name):
    save(store, 10)
    file = save(store, 20).folder / name
    os.truncate(file, file.stat().st_size - 1)
    assert store.newest()[1] == [20]

    file.unlink()
    assert store.newest()[1] == [20]


def test_when_all_are_damaged_there_is_none(store):
    for step in (10, 20):
        flip(save(store, step).folder / "state.pt")

    assert store.newest() == (None, [20, 10])


def test_a_damaged_one_is_written_again(store):
    flip(save(store, 10).folder / "state.pt")

    save(store, 10, fill=3)

    found, damaged = store.newest()
    assert (found.step, damaged) == (10, [])
    assert checkpoints.load_weights(found)["unet.mid.to_q.lora_A.weight"][0, 0] == 3


def test_the_same_step_is_written_once(store):
    first = save(store, 10)

    assert save(store, 10, fill=3) == first


def test_another_recipe_is_refused(run, store):
    save(store, 10)
    other = make_run(run.root, recipe={"learning_rate": 0.5})

    with pytest.raises(RequestFailed, match="another recipe") as refusal:
        checkpoints_of(other).newest()

    assert refusal.value.code == FailureCode.CHECKPOINT_MISMATCH


def test_other_pictures_are_refused(run, store):
    save(store, 10)
    other = Checkpoints(run, Origin(store._origin.recipe, entries(4).digest()))

    with pytest.raises(RequestFailed, match="other pictures"):
        other.newest()


def test_more_steps_are_welcome_and_fewer_than_are_done_are_not(run, store):
    save(store, 60)

    assert checkpoints_of(make_run(run.root, recipe={"steps": 500})).newest()[0].step == 60
    with pytest.raises(RequestFailed, match="behind the 50 steps"):
        checkpoints_of(make_run(run.root, recipe={"steps": 50})).newest()


def test_the_latest_the_best_and_the_pinned_stay(run, store):
    for step, loss in ((10, 0.9), (20, 0.3), (30, 0.4), (40, None), (50, 0.3), (60, 0.8), (70, 0.7)):
        save(store, step, loss=loss)

    removed = store.prune(keep=2, pinned=[10])

    assert folders(run) == ["step-000010", "step-000020", "step-000060", "step-000070"]
    assert removed == [30, 40, 50]
    assert store.prune(keep=2, pinned=[10]) == []


def test_a_damaged_one_does_not_count_among_the_latest(run, store):
    for step in (10, 20, 30):
        folder = save(store, step).folder
    flip(folder / "adapter.safetensors")

    removed = store.prune(keep=1)

    assert folders(run) == ["step-000020"]
    assert removed == [10, 30]


def test_nothing_goes_while_nothing_verifies(run, store):
    for step in (10, 20):
        flip(save(store, step).folder / "state.pt")

    assert store.prune(keep=1) == []
    assert folders(run) == ["step-000010", "step-000020"]


def test_more_than_a_million_steps_are_told_apart(run, store):
    for step in (999_999, 1_000_000):
        save(store, step)

    assert store.steps() == [999_999, 1_000_000]


def test_without_room_nothing_is_written(run, store, monkeypatch):
    size = save(store, 10).size_bytes
    usage = checkpoints.shutil.disk_usage(run.root)
    monkeypatch.setattr(
        checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=int(1.5 * size) - 1)
    )

    with pytest.raises(RequestFailed, match="The disk is full") as refusal:
        save(store, 20)

    assert refusal.value.code == FailureCode.DISK_FULL
    assert folders(run) == ["step-000010"]
    assert store.newest()[0].step == 10


def test_the_first_one_needs_room_for_what_it_holds(run, store, monkeypatch):
    usage = checkpoints.shutil.disk_usage(run.root)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=50_000))

    with pytest.raises(RequestFailed, match="The disk is full"):
        save(store, 10, size=10_000)


def test_what_is_to_stay_free_stays_free(run):
    free = checkpoints.shutil.disk_usage(run.root).free
    store = Checkpoints(
        run, Origin(checkpoints_of(run)._origin.recipe, entries().digest()), minimum_free_bytes=2 * free
    )

    with pytest.raises(RequestFailed, match="The disk is full"):
        save(store, 10)


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EIO, "storage_error")],
)
def test_a_disk_that_takes_no_more_leaves_what_was_there(run, store, monkeypatch, number, code):
    before = save(store, 10)

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writing.os, "fsync", fail)
    with pytest.raises(RequestFailed) as refusal:
        save(store, 20)

    assert refusal.value.code == code
    assert str(run.root) not in refusal.value.detail
    assert folders(run) == ["step-000010"]
    assert store.newest() == (before, [])


ON_A_FULL_DISK = """
import sys
from pathlib import Path
import torch
from training.pipelines.failures import RequestFailed
from training.tests.formats.runs import checkpoints_of, make_run
from training.tests.formats.test_checkpoints import save
from training.trainer import checkpoints
run = make_run(Path(sys.argv[1]) / "run")
store = checkpoints_of(run)
save(store, 10)
checkpoints.ROOM = 0.0  # it was free when somebody looked
for weights, optimizer in ((500_000, 1), (1, 500_000)):
    try:
        store.save(20, weights={"unet.a.lora_A.weight": torch.zeros(1, weights)}, state={"a": torch.zeros(optimizer)})
    except RequestFailed as refusal:
        print(refusal.code, refusal.detail, store.newest()[0].step, sorted(path.name for path in run.checkpoints.iterdir()))
"""


def test_a_disk_that_is_really_full_is_told_from_what_the_libraries_say(tmp_path):
    """Torch and safetensors write by themselves, and each has words of its own for it."""
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system of our own may be mounted here")
    argv = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    argv += [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=True)

    line = "disk_full The disk is full; the checkpoint could not be kept. 10 ['step-000010']"
    assert done.stdout.splitlines() == [line, line]


def save_for_ever(run, pipe):
    store = checkpoints_of(run)
    for step in range(1, 10_000):
        save(store, step, size=40_000)
        store.prune(keep=2)
        pipe.send(step)


def test_killed_while_it_saves_nothing_half_is_left(run, store):
    context = multiprocessing.get_context("fork")  # which need not import torch again
    for patience in (0.0, 0.003, 0.007, 0.011, 0.017):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=save_for_ever, args=(run, theirs))
        process.start()
        theirs.close()
        told = [ours.recv() for _ in range(3)][-1]
        time.sleep(patience)
        process.kill()
        process.join()
        with suppress(EOFError):
            while True:
                told = ours.recv()

        found, damaged = store.newest()

        assert damaged == []
        assert found.step >= told
        save(store, found.step + 1)
        assert not any(name.startswith(".") for name in folders(run))
        for step in store.steps():
            verify(run.checkpoints / folder_name(step))
            store._remove(step)
