"""What a training computes, against formulas written out by hand: with other ones it would learn, but something else."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from training.trainer import sampling
from training.trainer.chance import draw
from training.trainer.networks import load_adapter_weights
from training.trainer.stopping import Stop


def alone(rig, **recipe):
    """Return the run of one step on one batch of two pictures, and its training."""
    options = {
        "steps": 1,
        "batch_size": 2,
        "validation_every": 0,
        "random_flip": False,
        "learning_rate": 1e-12,
    }
    result = rig(**options | recipe).train()
    return result, result.training


def shown(training, result):
    """Return the examples of the first batch, and what is drawn for each."""
    recipe, stepper = result.run._recipe, training._stepper
    found = []
    for number, place in enumerate(stepper._order.batch(0)):
        example = stepper._examples[place]
        shape = training._pictures._latents[example.sha256, False].mean.shape
        found.append((example, draw(recipe.seed, number, shape, timesteps=1000)))
    return found


def by_hand(training, result):
    """Return of each picture: the example, what is drawn, noisy latents, velocity, and the share of the picture in them."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2  # “scaled linear”, as all of Stable Diffusion
    kept_of = (1 - betas).cumprod(0)
    rows = []
    for example, drawn in shown(training, result):
        latents = training._pictures._latents[example.sha256, False]
        clean = latents.mean.float() + latents.deviation.float() * drawn.posterior
        kept = kept_of[drawn.timestep]
        # J. Ho et al., 2020, equation 4; T. Salimans and J. Ho, 2022, appendix D.
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * drawn.noise
        velocity = kept.sqrt() * drawn.noise - (1 - kept).sqrt() * clean
        rows.append((example, drawn, noisy, velocity, kept))
    return rows


def batch_of(training, result):
    examples = [example for example, _ in shown(training, result)]
    return training._pictures.training_batch(examples, range(len(examples)))


@pytest.mark.parametrize("model", ["sd15", "v"])
def test_a_batch_is_noise_added_to_pictures_and_what_to_say_of_it(rig, model):
    result, training = alone(rig, model=model)

    batch = batch_of(training, result)

    rows = by_hand(training, result)
    assert len(rows) == 2
    assert batch.timesteps.tolist() == [drawn.timestep for _, drawn, *_ in rows]
    for place, (example, drawn, noisy, velocity, _) in enumerate(rows):
        torch.testing.assert_close(batch.noisy[place], noisy)
        torch.testing.assert_close(batch.target[place], velocity if model == "v" else drawn.noise)
        assert torch.equal(batch.texts.sequence[place], training._model.read([example.caption]).sequence[0])


@pytest.mark.parametrize("gamma", [None, 1.0])
@pytest.mark.parametrize("model", ["sd15", "v"])
def test_the_loss_is_the_weighted_mean_of_squares(rig, model, gamma):
    result, training = alone(rig, model=model, min_snr_gamma=gamma)
    unet = training._model.unet.eval()

    expected = []
    for example, drawn, noisy, velocity, kept in by_hand(training, result):
        text = training._model.read([example.caption]).sequence
        with torch.no_grad():
            said = unet(noisy[None], drawn.timestep, text).sample[0]
        error = ((said - (velocity if model == "v" else drawn.noise)) ** 2).mean()
        snr = kept / (1 - kept)
        weight = torch.tensor(1.0)
        if gamma is not None:  # T. Hang et al., 2023, section 3.4
            weight = torch.minimum(snr, torch.tensor(gamma)) / (snr + 1 if model == "v" else snr)
        expected.append(float(error * weight))

    assert result.losses == [pytest.approx(sum(expected) / 2, rel=1e-4)]


def test_sdxl_is_told_of_a_flipped_picture_what_is_cut_off_of_it(rig):
    """Where left and right change places, what is cut off at the left is what was cut off at the right."""
    result, training = alone(rig, model="sdxl", random_flip=True, batch_size=1)
    # Shown at the left end of a picture of twice its width.
    example = replace(
        training._stepper._examples[0], size=(80, 40), box=(0.0, 0.0, 40.0, 40.0), bucket=(40, 40)
    )
    latents = training._pictures._latents
    seen = {}
    for number in range(40):
        batch = training._pictures.training_batch([example], [number])
        shape = latents[example.sha256, False].mean.shape
        drawn = draw(result.run._recipe.seed, number, shape, timesteps=1000)
        is_flipped = drawn.flip < 0.5
        kept = latents[example.sha256, is_flipped]
        clean = kept.mean.float() + kept.deviation.float() * drawn.posterior
        noisy = training._model.schedule.add_noise(clean[None], drawn.noise[None], batch.timesteps)
        torch.testing.assert_close(batch.noisy, noisy)
        seen.setdefault(is_flipped, set()).add(tuple(batch.conditions[0].tolist()))

    # Height and width; cut off above and at the left; height and width of what is shown.
    assert seen == {False: {(40, 80, 0, 0, 40, 40)}, True: {(40, 80, 0, 40, 40, 40)}}


def test_nothing_is_dropped_out_of_samples(rig):
    options = {"steps": 2, "sample_every": 2, "sample_prompts": ("a red ball",), "learning_rate": 0.05}
    result = rig(**options, dropout=0.9).train()
    (sample,) = result.of("sample")

    drawn = redraw(rig(name="other", **options, dropout=0.0), result.weights)

    with Image.open(result.folder.root / sample["file"]) as picture:
        assert picture.tobytes() == drawn


def redraw(rig, weights):
    """Draw the sample of a training with other weights in it, and return its pixels."""
    result = rig.train()
    training = result.training
    load_adapter_weights(training._stepper.parts, weights)
    sampling.draw(
        training._model,
        rig.recipe,
        training._stepper.plan,
        result.folder,
        step=99,
        stop=Stop(),
        tell=lambda sample: None,
        report=lambda done: None,
    )
    with Image.open(result.folder.samples / "step-000099-0.png") as picture:
        return picture.tobytes()
