"""Validation and sample pictures say how far a training is, and do not disturb it."""

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from training.trainer import validation
from training.trainer.stopping import Stop

SAMPLES = {"sample_every": 2, "sample_prompts": ("a red ball", "a blue ball")}
DRAWS = {"dropout": 0.2, "caption_dropout": 0.2}


def assert_same(one, other):
    assert one.losses == other.losses
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_measuring_does_not_disturb(rig):
    one = rig(**DRAWS, validation_every=0).train()
    other = rig(name="measured", **DRAWS, validation_every=1).train()

    assert_same(one, other)


def test_drawing_does_not_disturb(rig):
    one = rig(**DRAWS).train()
    other = rig(name="drawn", **DRAWS, **SAMPLES).train()

    assert_same(one, other)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_samples_are_pictures_of_the_asked_size(rig, model, precision):
    result = rig(model=model, steps=2, **SAMPLES, sample_width=40, mixed_precision=precision).train()

    assert [(event["step"], event["index"]) for event in result.of("sample")] == [(2, 0), (2, 1)]
    for event in result.of("sample"):
        with Image.open(result.folder.root / event["file"]) as picture:
            assert picture.size == (40, 32) == (event["width"], event["height"])
    assert {path.suffix for path in result.folder.samples.iterdir()} == {".png"}


def test_samples_come_at_the_end_in_any_case(rig):
    result = rig(steps=5, **SAMPLES).train()

    assert sorted({event["step"] for event in result.of("sample")}) == [2, 4, 5]


def test_what_was_learned_is_saved_before_pictures_are_drawn(rig):
    result = rig(steps=4, checkpoint_every=2, **SAMPLES).train()

    told = [event["event"] for event in result.events if event["event"] in ("checkpoint", "sample")]
    assert told == ["checkpoint", "sample", "sample"] * 2


def test_a_picture_that_takes_long_tells_how_far_it_is(rig, monkeypatch):
    monkeypatch.setattr("training.trainer.progress.SECONDS_BETWEEN_EVENTS", 0.0)

    result = rig(steps=2, **SAMPLES, sample_steps=4).train()

    phases = [event for event in result.of("phase") if event["phase"] == "sample"]
    assert [event["done"] for event in phases] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert {event["total"] for event in phases} == {2}


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_samples_are_decoded_in_single_precision(rig, monkeypatch, model):
    """The autoencoder of SDXL overflows in half precision, and draws black."""
    decoded, decode = [], AutoencoderKL.decode

    def look(autoencoder, latents, *args, **options):
        decoded.append((latents.dtype, torch.is_autocast_enabled("cpu")))
        return decode(autoencoder, latents, *args, **options)

    monkeypatch.setattr(AutoencoderKL, "decode", look)

    rig(model=model, steps=2, **SAMPLES, mixed_precision="bf16").train()

    assert decoded == [(torch.float32, False)] * 2


def test_samples_come_when_somebody_asks(rig):
    stop = Stop()

    def answer(event):
        if event["event"] == "validation" and event["step"] == 3:
            stop.ask_for_samples()

    result = rig(sample_prompts=("a ball",)).train(stop=stop, answer=answer)

    assert [event["step"] for event in result.of("sample")] == [3]


class TestValidation:
    def test_is_the_same_whatever_was_drawn(self, rig):
        one, other = rig(seed=1).train(), rig(name="b", seed=2, batch_size=1).train()

        assert one.validation[0] == pytest.approx(other.validation[0], rel=1e-6)

    def test_comes_before_the_first_step_and_at_each_checkpoint(self, rig):
        result = rig(steps=7, validation_every=3, checkpoint_every=2, keep_checkpoints=9).train()

        assert [event["step"] for event in result.of("validation")] == [0, 2, 3, 4, 6, 7]
        assert all(event["validation_loss"] is not None for event in result.of("checkpoint"))

    def test_can_be_left_out(self, rig):
        result = rig(validation_every=0).train()

        assert not result.of("validation")
        assert result.finished["validation_loss"] is None
        assert result.finished["best_step"] is None

    def test_tells_the_best_and_keeps_it(self, rig, monkeypatch):
        said = iter([5.0, 3.0, 1.0, 2.0, 4.0, 6.0, 7.0])
        monkeypatch.setattr("training.trainer.loop.validation.measure", lambda *args, **options: next(said))

        result = rig(validation_every=1, checkpoint_every=1, keep_checkpoints=1).train()

        assert [event["is_best"] for event in result.of("validation")] == [True] * 3 + [False] * 4
        assert [event["step"] for event in result.of("checkpoint") if event["is_best"]] == [1, 2]
        assert sorted(path.name for path in result.folder.checkpoints.iterdir()) == [
            "step-000002",
            "step-000006",
        ]
        assert [event["removed"] for event in result.of("checkpoint")] == [[], [1], [], [3], [4], [5]]
        assert (result.finished["best_step"], result.finished["validation_loss"]) == (2, 1.0)

    def test_ends_a_training_that_gets_no_better(self, rig, monkeypatch):
        said = iter([5.0, 3.0, 3.0, 4.0])
        monkeypatch.setattr("training.trainer.loop.validation.measure", lambda *args, **options: next(said))
        rig = rig(steps=50, validation_every=2, patience=2)

        result = rig.train()

        assert result.finished["step"] == 6
        assert rig.train().finished["step"] == 6


def test_pinned_checkpoints_stay(rig):
    rig = rig(steps=5, checkpoint_every=1, keep_checkpoints=1, validation_every=0)

    def answer(event):
        if event["event"] == "checkpoint" and event["step"] == 2:
            rig.extra["pinned"] = (2,)
            rig.write()

    result = rig.train(answer=answer)

    assert sorted(path.name for path in result.folder.checkpoints.iterdir()) == ["step-000002", "step-000005"]


def test_nothing_is_dropped_out_while_it_is_measured(rig):
    result = rig(dropout=0.9, learning_rate=0.1).train()
    training = result.training

    def measure():
        return validation.measure(
            training._validated,
            training._pictures,
            training._stepper,
            processes=training._processes,
            report=lambda done, total: None,
        )

    assert measure() == measure()
    assert all(part.training for part in training._stepper.parts.values())
