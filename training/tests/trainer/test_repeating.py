"""Once more is the same once more, to the bit, with a break in between or without."""

import json
from dataclasses import replace

import pytest
import torch

from training.tests.trainer.rig import make_rig, small_recipe
from training.trainer.optimizers import OPTIONAL
from training.trainer.stopping import Stop

FULL = {
    "steps": 6,
    "batch_size": 2,
    "dropout": 0.2,
    "caption_dropout": 0.3,
    "noise_offset": 0.05,
    "center_crop": False,
    "lr_scheduler": "cosine",
    "warmup_steps": 2,
    "gradient_accumulation_steps": 2,
    "validation_every": 2,
}
"""Everything that draws, averages or counts is on."""


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def stop_at():
    """Ask a training to stop when a step is told of."""

    def make(step, *, save=True):
        stop = Stop()

        def answer(event):
            if event["event"] == "validation" and event["step"] == step:
                stop.request(save=save)

        return {"stop": stop, "answer": answer}

    return make


@pytest.fixture(scope="module")
def whole_of(tmp_path_factory, tiny_folders):
    """Train by a recipe without a break; once for all that are compared with it."""
    root, found = tmp_path_factory.mktemp("whole"), {}

    def train(model="sd15", **options):
        recipe = small_recipe(**FULL | options)
        key = model, recipe.digest()
        if key not in found:
            found[key] = make_rig(root / str(len(found)), tiny_folders[model], recipe).train()
        return found[key]

    return train


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_the_same_seed_gives_the_same_weights(rig, whole_of, model):
    one = whole_of(model)
    other = rig(model=model, name="again", **FULL).train()

    assert one.losses == other.losses
    assert one.validation == other.validation
    assert_same(one.weights, other.weights)


def test_another_seed_gives_others(rig, whole_of):
    one = whole_of()
    other = rig(name="again", **FULL, seed=4).train()

    assert one.losses != other.losses


@pytest.mark.parametrize(
    "more",
    [{}, {"train_text_encoder": True, "text_encoder_learning_rate": 1e-4}, {"optimizer": "adafactor"}],
    ids=["adamw", "text-encoder", "adafactor"],
)
def test_a_break_leaves_no_trace(rig, whole_of, stop_at, more):
    whole = whole_of(**more)
    halved = rig(name="halved", **FULL, **more)

    first = halved.train(**stop_at(4))
    second = halved.train()

    assert not first.is_finished
    assert first.of("stopped")[0] | {"saved": True, "step": 4} == first.of("stopped")[0]
    assert second.of("started")[0]["resumed_from"] == 4
    assert first.points[-1][0] == 4
    assert [point[:4] for point in first.points + second.points] == [point[:4] for point in whole.points]
    assert first.validation + second.validation == whole.validation
    assert second.finished["training_loss"] == whole.finished["training_loss"]
    assert_same(second.weights, whole.weights)
    names = ("step", "loss", "validation_loss")
    metrics = [
        [{name: json.loads(line).get(name) for name in names} for line in result.folder.metrics.open()]
        for result in (whole, second)
    ]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(("optimizer", "rate"), [("prodigy", 1.0), ("adamw8bit", 1e-3)])
def test_optimizers_that_are_not_always_there_go_on_as_well(rig, whole_of, stop_at, optimizer, rate):
    pytest.importorskip(OPTIONAL[optimizer][0])
    options = {"optimizer": optimizer, "learning_rate": rate, "rank": 64, "alpha": 64.0}
    halved = rig(name="halved", **FULL | options)
    halved.train(**stop_at(4))

    assert_same(halved.train().weights, whole_of(**options).weights)


def test_a_break_without_the_state_of_the_optimizer_would_leave_one(rig, whole_of, stop_at, monkeypatch):
    whole = whole_of()
    halved = rig(name="halved", **FULL)
    halved.train(**stop_at(4))
    monkeypatch.setattr("training.trainer.stepping.Stepper.load_state", lambda stepper, state: None)

    second = halved.train()

    assert any(not torch.equal(second.weights[name], whole.weights[name]) for name in whole.weights)


def test_what_was_measured_behind_the_checkpoint_is_measured_again(rig):
    rig = rig(steps=4, checkpoint_every=2)
    rig.train()
    for path in (rig.folder.checkpoints / "step-000004").iterdir():
        path.write_bytes(b"damaged")

    second = rig.train()

    assert [warning["code"] for warning in second.of("warning")] == ["checkpoint_damaged"]
    assert second.of("started")[0]["resumed_from"] == 2
    steps = [json.loads(line)["step"] for line in rig.folder.metrics.open() if '"loss"' in line]
    assert steps == [1, 2, 3, 4]


def test_one_that_died_before_its_first_checkpoint_begins_anew(rig, monkeypatch):
    rig = rig(steps=4)
    monkeypatch.setattr("training.trainer.loop.Training._save", lambda training: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rig.train()
    monkeypatch.undo()

    second = rig.train()

    assert second.of("started")[0]["resumed_from"] is None
    steps = [json.loads(line)["step"] for line in rig.folder.metrics.open()]
    assert steps == [0, 1, 2, 3, 3, 4, 4]


def test_more_steps_may_follow(rig):
    first = rig(steps=4)
    first.train()

    second = first.but(steps=6).train()

    assert second.of("started")[0]["resumed_from"] == 4
    assert [point[0] for point in second.points] == [5, 6]


def test_more_steps_have_their_own_rates_from_the_first(rig):
    options = {"lr_scheduler": "linear", "learning_rate": 0.8, "validation_every": 0}
    first = rig(steps=4, **options)
    first.train()

    second = first.but(steps=8).train()

    whole = [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert [point[2] for point in second.points] == pytest.approx(whole[4:])
    assert second.training._stepper._optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_a_finished_training_is_only_exported_again(rig):
    first = rig().train()

    again = type(first.run)(
        first.folder,
        first.run._assignment,
        channel=None,
        processes=first.run._processes,
        stop=Stop(),
    )
    (first.folder.root / first.finished["file"]).unlink()

    assert again.carry_out()
    assert (first.folder.root / first.finished["file"]).exists()


def test_gradient_checkpointing_changes_no_bit(rig, whole_of):
    one = whole_of()
    other = rig(name="saving", **FULL, gradient_checkpointing=True).train()

    assert one.losses == other.losses
    assert_same(one.weights, other.weights)


def test_four_batches_of_one_are_one_of_four(rig):
    options = {"steps": 2, "validation_every": 0}
    one = rig(**options, batch_size=4)
    one = replace(one, entries=tuple(one.entries[number] for number in (0, 2, 4, 5)))  # one bucket
    other = one.but(one.root.with_name("accumulated"), batch_size=1, gradient_accumulation_steps=4)

    one, other = one.train(), other.train()

    assert one.points[0][3] == pytest.approx(other.points[0][3], rel=1e-5)  # the norm of the gradients
    assert other.losses == pytest.approx(one.losses, rel=1e-5)
    for name, tensor in one.weights.items():
        # Adam divides by the size of a gradient, and so enlarges what rounding did to the smallest.
        torch.testing.assert_close(other.weights[name], tensor, rtol=1e-2, atol=1e-4)
