import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from training.starter.cli import QUICK
from training.starter.mixed_precision import MixedPrecisionOptimizer
from training.starter.publishing import load, save_weights
from training.starter.trainer import OtherRecipe, train


def _weights(folder):
    return {path.parent.name: load_file(path) for path in folder.rglob("*.safetensors")}


def _same(one, other):
    return all(torch.equal(tensor, other[part][name]) for part in one for name, tensor in one[part].items())


def _trained(recipe, folder):
    save_weights(train(recipe, folder / "work", lambda *_: None), folder / "model")
    return _weights(folder / "model")


def _optimizer(*modules, **changes):
    settings = {"learning_rate": 0.1, "warmup_steps": 10, "total_steps": 100, "ema_decay": 0.9}
    return MixedPrecisionOptimizer(*modules, **(settings | changes))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, _trained(QUICK, folder)


def test_training_ends_in_a_pipeline_that_loads_and_draws(undisturbed):
    folder, _ = undisturbed
    pipeline = load(folder / "model")
    pipeline.set_progress_bar_config(disable=True)

    image = pipeline("a red heart", num_inference_steps=2).images[0]

    assert image.size == (64, 64)
    assert {part.dtype for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder)} == {torch.float32}
    assert {
        tensor.dtype for tensors in _weights(folder / "model").values() for tensor in tensors.values()
    } == {torch.float16}


def test_the_same_seed_gives_the_same_weights(undisturbed, tmp_path):
    assert _same(undisturbed[1], _trained(QUICK, tmp_path))


def test_another_seed_gives_other_weights(undisturbed, tmp_path):
    assert not _same(undisturbed[1], _trained(replace(QUICK, seed=1), tmp_path))


@pytest.mark.parametrize(
    "deaths", [("autoencoder", 2), ("denoiser", 2), ("denoiser", 4), ("late captions", 2)]
)
def test_a_killed_training_goes_on_to_the_same_weights(undisturbed, tmp_path, deaths):
    class Killed(Exception):
        pass

    def die(stage, steps_done, steps_in_all, loss):
        if (stage, steps_done) == deaths:
            raise Killed

    with pytest.raises(Killed):
        train(QUICK, tmp_path / "work", die)

    assert _same(undisturbed[1], _trained(QUICK, tmp_path))


def test_a_finished_training_is_not_repeated(undisturbed):
    folder, weights = undisturbed
    reports = []

    save_weights(train(QUICK, folder / "work", lambda *report: reports.append(report)), folder / "again")

    assert reports == []
    assert _same(weights, _weights(folder / "again"))


def test_the_state_of_another_recipe_is_refused(undisturbed):
    with pytest.raises(OtherRecipe, match="other settings"):
        train(replace(QUICK, seed=2), undisturbed[0] / "work")


def test_progress_counts_up_to_the_last_step_of_each_stage(tmp_path):
    reports = []

    train(QUICK, tmp_path, lambda stage, done, total, loss: reports.append((stage, done, total)))

    assert reports == [
        ("autoencoder", 2, 4),
        ("autoencoder", 4, 4),
        ("denoiser", 2, 4),
        ("denoiser", 4, 4),
        ("late captions", 2, 2),
    ]
    assert json.loads((tmp_path / "recipe.json").read_text())["seed"] == QUICK.seed


def test_the_rate_warms_up_holds_and_decays_to_nothing():
    optimizer = _optimizer(nn.Linear(2, 2), hold_share=0.5)

    rates = []
    for optimizer.step_count in range(101):
        rates.append(optimizer.rate())

    assert rates[0] == pytest.approx(0.01)
    assert rates[9:51] == pytest.approx([0.1] * 42)
    assert rates[75] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0)


def test_it_learns_although_it_computes_in_bfloat16():
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    inputs = torch.randn(256, 4)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + 0.25
    optimizer = _optimizer(module, learning_rate=0.05, total_steps=300)

    for _ in range(300):
        optimizer.step((module(inputs.bfloat16()).float() - targets).square().mean())
    optimizer.finish()

    assert module.weight.dtype == torch.float32
    # Closer than bfloat16 could say: 2.0 and its neighbor there are 0.008 apart.
    assert module.weight.detach()[0].tolist() == pytest.approx([1.0, -2.0, 0.5, 0.0], abs=0.02)


def test_a_weight_that_the_loss_does_not_reach_keeps_its_value():
    used, unused = nn.Linear(2, 1), nn.Linear(2, 1)
    before = unused.weight.detach().clone()
    optimizer = _optimizer(used, unused)

    optimizer.step(used(torch.ones(1, 2).bfloat16()).float().sum())
    optimizer.finish()

    assert torch.equal(unused.weight, before)
